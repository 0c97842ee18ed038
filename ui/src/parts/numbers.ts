/** Numbers and times for people. */

export function rate(perSecond: number): string {
  if (perSecond === 0) return "0/s";
  if (perSecond < 0.1) return `${trim(perSecond * 60)}/min`;
  return `${compact(perSecond)}/s`;
}

export function compact(value: number): string {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (Math.abs(value) >= size) return `${trim(value / size)}${unit}`;
  }
  return trim(value);
}

function trim(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}

export function bytes(value: number): string {
  return value < 1000 ? `${value} B` : `${compact(value)}B`.replace(/([GMk])B$/, " $1B");
}

export function duration(seconds: number): string {
  if (seconds < 0.001) return `${trim(seconds * 1e6)} µs`;
  if (seconds < 1) return `${trim(seconds * 1e3)} ms`;
  if (seconds < 120) return `${trim(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** Of the day, in local time, to the millisecond: `14:03:07.512`. */
export function clock(time: string): string {
  const at = new Date(time);
  const parts = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${parts}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** Date and time of the day, the date only where it is not today's. */
export function moment(time: string | number | Date, now = new Date()): string {
  const at = new Date(time);
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === now.toDateString() ? clock : `${day} ${clock}`;
}

export function ago(time: string, now = Date.now()): string {
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  return seconds < 2 ? "now" : `${duration(Math.round(seconds))} ago`;
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

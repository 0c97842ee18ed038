/** Spans of time, as the address has them: RFC 3339; neither `since` nor `until` is the present. */

export const SCOPES: Record<string, number> = {
  "5m": 300,
  "15m": 900,
  "1h": 3600,
  "6h": 21600,
  "24h": 86400,
  "7d": 604800,
};
export const USUAL = "15m";

export function secondsOf(scope: string | null): number {
  return SCOPES[scope ?? USUAL] ?? SCOPES[USUAL] ?? 900;
}

export type Span = { since: number; until: number };

/** Null where the address means the present. Half a span is open at its other end. */
export function chosen(query: URLSearchParams, now: number): Span | null {
  const [since, until] = [query.get("since"), query.get("until")];
  if (!since && !until) return null;
  const end = read(until) ?? now;
  const begin = read(since) ?? end - 60_000;
  return begin < end ? { since: begin, until: end } : { since: end - 60_000, until: end };
}

function read(text: string | null): number | null {
  const found = text ? Date.parse(text) : Number.NaN;
  return Number.isNaN(found) ? null : found;
}

/** What the bar shows: the scope up to now, widened so that a chosen span is in it. */
export function window(scope: string, span: Span | null, now: number): Span {
  const width = secondsOf(scope) * 1000;
  const since = now - width;
  if (!span || span.since >= since) return { since, until: now };
  const margin = Math.max(width / 2, span.until - span.since);
  return { since: span.since - margin, until: Math.min(now, span.until + margin) };
}

export function moved({ since, until }: Span, by: number, now: number): Span {
  const width = until - since;
  const end = Math.min(now, until + by * width);
  return { since: end - width, until: end };
}

export function text(at: number): string {
  return new Date(Math.round(at)).toISOString();
}

/** For `<input type="datetime-local">`, which knows local time alone. */
export function local(at: number): string {
  const date = new Date(at);
  return new Date(at - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

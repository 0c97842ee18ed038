const WIDTH = 96;
const HEIGHT = 20;

/** The course of a rate over the last minute. */
export function Sparkline({ values }: { values: number[] }) {
  const highest = Math.max(1, ...values);
  const points = values.map((value, at) => {
    const x = (at / Math.max(1, values.length - 1)) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 3)).toFixed(1)}`;
  });
  return (
    <svg aria-hidden="true" height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH}>
      <polyline
        fill="none"
        points={points.join(" ")}
        stroke="var(--accent)"
        strokeLinejoin="round"
        strokeWidth="1.3"
      />
    </svg>
  );
}

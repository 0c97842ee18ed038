/** Line icons on a grid of 16, drawn for this page. */

const PATHS = {
  map: "M3 3h4v4H3zM9 9h4v4H9zM5 7v2.5a1.5 1.5 0 0 0 1.5 1.5H9",
  flows: "M2.5 4h11M2.5 8h11M2.5 12h7",
  policies: "M8 1.8 13 4v4c0 3-2.2 5.2-5 6.2C5.2 13.2 3 11 3 8V4zM5.8 8l1.6 1.6L10.4 6.5",
  nodes: "M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3a5.5 5.5 0 1 0 6.5 6.5z",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  check: "M3.5 8.5l3 3 6-7",
  cross: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  pause: "M5.5 4v8M10.5 4v8",
  play: "M5 3.5v9l7-4.5z",
  left: "M10 3.5 5.5 8l4.5 4.5",
  right: "M6 3.5 10.5 8 6 12.5",
  down: "M3.5 6 8 10.5 12.5 6",
  up: "M3.5 10 8 5.5 12.5 10",
  filter: "M2.5 3.5h11L9.5 8.5v4l-3-1.5V8.5z",
  warning: "M8 2.5 14 13H2zM8 6.5v3M8 11.2v.1",
  globe: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM2 8h12M8 2c4 4 4 8 0 12M8 2c-4 4-4 8 0 12",
  box: "M8 1.8 13.5 4.7v6.6L8 14.2l-5.5-2.9V4.7zM2.5 4.7 8 7.6l5.5-2.9M8 7.6v6.6",
  server: "M3 3h10v4H3zM3 9h10v4H3zM5.5 5h.01M5.5 11h.01",
  keys: "M2 4.5h12v7H2zM4.5 7h.01M7 7h.01M9.5 7h.01M12 7h.01M5.5 9.5h5",
  fit: "M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3",
  exit: "M6.5 3H3v10h3.5M7 8h6.5M11 5.5 13.5 8 11 10.5",
  clock: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 4.8V8l2.2 1.4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      aria-hidden="true"
      fill="none"
      height={size}
      stroke="currentColor"
      strokeLinecap="round"
      strokeLinejoin="round"
      strokeWidth="1.4"
      viewBox="0 0 16 16"
      width={size}
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

/** Nine pairs around two: the cross-section of an axoneme. */
export function Mark({ size = 22 }: { size?: number }) {
  const around = Array.from({ length: 9 }, (_, at) => (2 * Math.PI * at) / 9 - Math.PI / 2);
  return (
    <svg aria-hidden="true" fill="currentColor" height={size} viewBox="0 0 32 32" width={size}>
      {around.map((angle) => (
        <circle cx={16 + 11 * Math.cos(angle)} cy={16 + 11 * Math.sin(angle)} key={angle} r="2.3" />
      ))}
      <circle cx="13" cy="16" r="2.6" />
      <circle cx="19" cy="16" r="2.6" />
    </svg>
  );
}

import { type PointerEvent, useEffect, useRef, useState } from "react";
import { asked } from "../api/client";
import type { Timeline } from "../api/types";
import { useResource } from "../api/useResource";
import { asked as askedFor, fromQuery } from "../filters/language";
import { moment, plural } from "../parts/numbers";
import { Button, tone } from "../parts/parts";
import { changed, go, link, usePlace } from "../place/place";
import { useKnown } from "../shell/session";
import { chosen, local, moved, SCOPES, type Span, text, USUAL, window as windowOf } from "./span";
import styles from "./TimeBar.module.css";

const BUCKETS = 180;
/** How long after an answer the present is asked for anew, in seconds. */
const EVERY = 5;

/** How many flows there were when, of those that pass the filters; drag over it to look at that time. */
export function TimeBar() {
  const { view, query } = usePlace();
  const { meta } = useKnown();
  const [now, setNow] = useState(Date.now);
  const span = chosen(query, now);
  const scope = query.get("scope") ?? USUAL;
  const shown = windowOf(scope, span, now);
  const path = asked("timeline", [
    ["since", text(shown.since)],
    ["until", text(shown.until)],
    ["buckets", String(BUCKETS)],
    ...askedFor(fromQuery(query, meta.filters)),
  ]);
  const { data, problem } = useLatest(path, setNow);
  const show = (next: Span | null) =>
    go(
      link(
        view,
        changed(query, {
          since: next ? text(next.since) : null,
          until: next ? text(next.until) : null,
          flow: null,
        }),
      ),
    );

  return (
    <section aria-label="Time" className={styles.bar}>
      <div className={styles.tools}>
        <Button aria-pressed={span === null} onClick={() => show(null)} title="Back to now (l)">
          <span className={`${styles.dot} ${span === null ? styles.live : ""}`} />
          Live
        </Button>
        <label>
          <span className="visually-hidden">Scope</span>
          <select
            className={styles.select}
            onChange={(event) => go(link(view, changed(query, { scope: event.target.value })), true)}
            value={scope}
          >
            {Object.keys(SCOPES).map((each) => (
              <option key={each} value={each}>
                last {each}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Histogram onChoose={show} shown={shown} span={span} timeline={data} />
      <div className={styles.chosen}>
        {span ? (
          <>
            <Button
              aria-label="Earlier"
              icon="left"
              look="quiet"
              onClick={() => show(moved(span, -1, now))}
            />
            <Moment at={span.since} label="From" onChange={(since) => show({ ...span, since })} />
            <span aria-hidden="true">–</span>
            <Moment at={span.until} label="Until" onChange={(until) => show({ ...span, until })} />
            <Button aria-label="Later" icon="right" look="quiet" onClick={() => show(moved(span, 1, now))} />
          </>
        ) : (
          <Button onClick={() => show({ since: now - 60_000, until: now })}>Last minute</Button>
        )}
        {problem && <span className={styles.problem}>{problem.message}</span>}
      </div>
    </section>
  );
}

function Moment({ at, label, onChange }: { at: number; label: string; onChange: (at: number) => void }) {
  return (
    <input
      aria-label={label}
      className={styles.moment}
      onChange={(event) => {
        const found = Date.parse(event.target.value);
        if (!Number.isNaN(found)) onChange(found);
      }}
      step="1"
      type="datetime-local"
      value={local(at)}
    />
  );
}

type HistogramProps = {
  timeline: Timeline | null;
  shown: Span;
  span: Span | null;
  onChoose: (span: Span) => void;
};

const ORDER = ["good", "aside", "tried", "bad"] as const;

function Histogram({ timeline, shown, span, onChoose }: HistogramProps) {
  const [drag, setDrag] = useState<[number, number] | null>(null);
  const area = useRef<HTMLDivElement>(null);
  const width = shown.until - shown.since;
  const share = (event: PointerEvent) => {
    const box = area.current?.getBoundingClientRect();
    return box ? Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) : 0;
  };
  const begin = (event: PointerEvent) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    setDrag([share(event), share(event)]);
  };
  const end = () => {
    if (!drag) return;
    const [from, to] = [Math.min(...drag), Math.max(...drag)];
    setDrag(null);
    // A click means its surroundings.
    const [since, until] = to - from < 0.004 ? [from - 0.02, from + 0.02] : [from, to];
    onChoose({
      since: shown.since + since * width,
      until: Math.min(shown.until, shown.since + until * width),
    });
  };
  const brush = drag
    ? ([Math.min(...drag), Math.max(...drag)] as const)
    : span
      ? ([(span.since - shown.since) / width, (span.until - shown.since) / width] as const)
      : null;
  const stacks = stacked(timeline);
  const highest = Math.max(1, ...stacks.map((stack) => stack.reduce((sum, part) => sum + part, 0)));
  const recorded = timeline?.recorded ? (Date.parse(timeline.recorded.since) - shown.since) / width : 0;
  return (
    <div
      className={styles.histogram}
      onPointerCancel={() => setDrag(null)}
      onPointerDown={begin}
      onPointerMove={(event) => drag && setDrag([drag[0], share(event)])}
      onPointerUp={end}
      ref={area}
    >
      <svg
        aria-label={inWords(stacks, shown)}
        preserveAspectRatio="none"
        role="img"
        viewBox={`0 0 ${BUCKETS} 100`}
      >
        {ORDER.map((kind, row) => (
          <path className={styles[kind]} d={bars(stacks, row, highest)} key={kind} />
        ))}
      </svg>
      {recorded > 0 && (
        <div
          className={styles.unrecorded}
          style={{ width: `${Math.min(1, recorded) * 100}%` }}
          title="Nothing is recorded of this time"
        />
      )}
      {brush && (
        <div
          className={styles.brush}
          style={{ left: `${brush[0] * 100}%`, width: `${(brush[1] - brush[0]) * 100}%` }}
        />
      )}
      <span className={styles.from}>{moment(shown.since)}</span>
      <span className={styles.to}>{moment(shown.until)}</span>
    </div>
  );
}

/** For each bucket how many of each tone, in `ORDER`. */
function stacked(timeline: Timeline | null): number[][] {
  if (!timeline) return [];
  const entries = Object.entries(timeline.verdicts);
  const count = Math.max(0, ...entries.map(([, numbers]) => numbers.length));
  return Array.from({ length: count }, (_, bucket) =>
    ORDER.map((kind) =>
      entries.reduce(
        (sum, [verdict, numbers]) => sum + (tone(verdict) === kind ? (numbers[bucket] ?? 0) : 0),
        0,
      ),
    ),
  );
}

/** One row of bars. Few drops among many flows are to be seen all the same, so heights go by square roots. */
function bars(stacks: number[][], row: number, highest: number): string {
  const scale = BUCKETS / Math.max(1, stacks.length);
  const height = (value: number) => 92 * Math.sqrt(value / highest);
  return stacks
    .map((stack, bucket) => {
      if (!stack[row]) return "";
      // What is refused stands at the bottom, where it cannot be overlooked.
      const below = height(stack.slice(row + 1).reduce((sum, part) => sum + part, 0));
      const top = height(stack.slice(row).reduce((sum, part) => sum + part, 0));
      return `M${bucket * scale} ${100 - below}h${scale * 0.78}V${100 - top}h${-scale * 0.78}z`;
    })
    .join("");
}

function inWords(stacks: number[][], shown: Span): string {
  const sum = (row: number) => stacks.reduce((all, stack) => all + (stack[row] ?? 0), 0);
  const total = sum(0) + sum(1) + sum(2) + sum(3);
  return `${plural(total, "flow")} from ${moment(shown.since)} to ${moment(shown.until)}, ${sum(3).toLocaleString("en")} dropped`;
}

/** The newest answer, also while the next is on its way; some time after each it is another time. */
function useLatest(path: string, setNow: (now: number) => void) {
  const { data, problem } = useResource<Timeline>(path);
  const [last, setLast] = useState<Timeline | null>(null);
  useEffect(() => {
    if (data) setLast(data);
    if (!data && !problem) return;
    const advance = () => {
      if (document.visibilityState === "visible") setNow(Date.now());
      else timer = window.setTimeout(advance, EVERY * 1000);
    };
    let timer = window.setTimeout(advance, EVERY * 1000);
    return () => window.clearTimeout(timer);
  }, [data, problem, setNow]);
  return { data: data ?? last, problem };
}

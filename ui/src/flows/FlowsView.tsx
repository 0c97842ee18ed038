import { useEffect, useMemo, useState } from "react";
import { FilterBar } from "../filters/FilterBar";
import { asked, fromQuery, withTerms } from "../filters/language";
import { compact, rate } from "../parts/numbers";
import { Button, Empty, Missing, ProblemNotice, Verdict } from "../parts/parts";
import { changed, go, link, usePlace } from "../place/place";
import { useKnown } from "../shell/session";
import { useShortcuts } from "../shell/useShortcuts";
import { TimeBar } from "../time/TimeBar";
import { BusyTable } from "./BusyTable";
import { FlowPanel } from "./FlowPanel";
import styles from "./FlowsView.module.css";
import { FlowTable } from "./FlowTable";
import type { Feed } from "./feed";
import { Sparkline } from "./Sparkline";
import { useFlows } from "./useFlows";

export function FlowsView() {
  const { query } = usePlace();
  const { meta } = useKnown();
  const [since, until] = [query.get("since") ?? "", query.get("until") ?? ""];
  const terms = useMemo(() => fromQuery(query, meta.filters), [query, meta.filters]);
  const { feed, line, problem, older } = useFlows(asked(terms), since, until);
  const [paused, setPaused] = useState<Feed | null>(null);
  const live = !since && !until;
  const asking = JSON.stringify([terms, since, until]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what was paused is of other filters, or of another time
  useEffect(() => setPaused(null), [asking]);
  const shown = (live && paused) || feed;
  const crowd = live && !paused && feed.crowded > 0;
  const rowsAnyway = query.get("tab") === "rows";

  const select = (flow: string) => go(link("flows", changed(query, { flow })), true);
  const pause = () => setPaused(paused ? null : feed);
  useShortcuts({
    " ": pause,
    Escape: () => select(""),
    l: () => go(link("flows", changed(query, { since: null, until: null }))),
  });
  const id = query.get("flow") ?? "";
  const row = useMemo(() => (id ? shown.rows.find((each) => each.id === id) : undefined), [id, shown.rows]);

  return (
    <div className={styles.view}>
      <div className={styles.top}>
        <FilterBar
          filters={meta.filters}
          onChange={(parsed) => {
            const next = withTerms(query, meta.filters, parsed.terms);
            const times = {
              ...(parsed.since ? { since: moment(parsed.since) } : {}),
              ...(parsed.until ? { until: moment(parsed.until) } : {}),
            };
            go(link("flows", changed(next, { ...times, flow: null })));
          }}
          since={since}
          terms={terms}
          until={until}
        />
        <div className={styles.status}>
          {live && (
            <Button
              aria-pressed={paused !== null}
              icon={paused ? "play" : "pause"}
              onClick={pause}
              title="Pause (space)"
            >
              {paused ? "Go on" : "Pause"}
            </Button>
          )}
          <span className={styles.said} role="status">
            {live ? said(line, feed, paused) : `${feed.rows.length.toLocaleString("en")} flows of this time`}
          </span>
          {live && (
            <>
              <Sparkline values={feed.rates} />
              {Object.entries(feed.verdicts)
                .filter(([, perSecond]) => perSecond > 0)
                .map(([verdict, perSecond]) => (
                  <span className={styles.rate} key={verdict}>
                    <Verdict verdict={verdict} /> {rate(perSecond)}
                  </span>
                ))}
            </>
          )}
          {crowd && (
            <Button
              aria-pressed={rowsAnyway}
              onClick={() => go(link("flows", changed(query, { tab: rowsAnyway ? null : "rows" })), true)}
            >
              Some rows all the same
            </Button>
          )}
        </div>
        {problem && <ProblemNotice problem={problem} />}
        <Missing absent={shown.absent} lost={shown.lost} />
      </div>
      <div className={styles.middle}>
        {crowd && !rowsAnyway ? (
          <BusyTable busiest={feed.busiest} query={query} rate={feed.rate} />
        ) : shown.rows.length ? (
          <FlowTable onOlder={older} onSelect={select} rows={shown.rows} selected={id} />
        ) : (
          <Empty
            title={
              line === "connecting"
                ? "Asking for flows"
                : terms.length
                  ? "No flow passes these filters"
                  : "No flows yet"
            }
          >
            {line !== "connecting" &&
              (live ? "They appear here as they happen." : "Of this time none are recorded.")}
          </Empty>
        )}
        {id &&
          (row ? (
            <FlowPanel key={row.id} onClose={() => select("")} query={query} row={row} />
          ) : (
            shown.rows.length > 0 && (
              <aside aria-label="Flow" className={styles.gone}>
                <p>This flow is no longer among those in the page.</p>
                <Button onClick={() => select("")}>Close</Button>
              </aside>
            )
          ))}
      </div>
      <TimeBar />
    </div>
  );
}

function said(line: string, feed: Feed, paused: Feed | null): string {
  if (paused) return `Paused; ${compact(feed.seen - paused.seen)} came since`;
  if (line === "connecting") return "Connecting";
  if (line === "lost") return "The server does not answer; what is shown is old";
  return `${rate(feed.rate)} match`;
}

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400 };

/** A time as the command takes it: how long ago, or a moment. */
function moment(text: string): string {
  const parts = [...text.matchAll(/(\d+)([smhd])/g)];
  const whole = parts.map((part) => part[0]).join("");
  if (!parts.length || whole !== text) return text;
  const seconds = parts.reduce((sum, [, count, unit = "s"]) => sum + Number(count) * (UNITS[unit] ?? 1), 0);
  return new Date(Date.now() - seconds * 1000).toISOString();
}

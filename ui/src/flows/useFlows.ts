import { useCallback, useEffect, useState } from "react";
import { asked, get, Problem } from "../api/client";
import { follow, type Line } from "../api/stream";
import type { FlowBatch, FlowList } from "../api/types";
import { EMPTY, type Feed, fed } from "./feed";

/** How many rows of the past come at once. */
const PAGE = 1000;

export type Followed = {
  feed: Feed;
  line: Line;
  problem: Problem | null;
  /** Fetches older rows of a span; null where there are none. */
  older: (() => void) | null;
};

/** Flows that pass the filters: live, or of the time between `since` and `until`. */
export function useFlows(filters: [string, string][], since: string, until: string): Followed {
  const [feed, setFeed] = useState<Feed>(EMPTY);
  const [line, setLine] = useState<Line>("connecting");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [more, setMore] = useState(false);
  const past = since || until ? asked("flows", [...filters, ["since", since], ["last", String(PAGE)]]) : "";
  const live = asked("flows/stream", [...filters, ["last", "300"]]);

  const load = useCallback(
    (before: string, signal?: AbortSignal) =>
      get<FlowList>(`${past}${before ? `&until=${encodeURIComponent(before)}` : ""}`, signal).then(
        (found) => {
          setMore(found.more);
          setLine("open");
          setFeed((old) => {
            const known = new Set(old.rows.map((row) => row.id));
            const rows = [...found.flows.filter((row) => !known.has(row.id)), ...old.rows];
            return { ...old, rows, seen: rows.length, lost: found.lost, absent: found.absent };
          });
        },
        (error) => {
          if (signal?.aborted) return;
          setLine("lost");
          setProblem(error instanceof Problem ? error : new Problem(String(error)));
        },
      ),
    [past],
  );

  useEffect(() => {
    setFeed(EMPTY);
    setProblem(null);
    setMore(false);
    setLine("connecting");
    if (past) {
      const gone = new AbortController();
      void load(until, gone.signal);
      return () => gone.abort();
    }
    return follow(live, { flows: (batch: FlowBatch) => setFeed((old) => fed(old, batch)) }, (state, why) => {
      setLine(state);
      setProblem(why ? new Problem(why) : null);
    });
  }, [past, until, live, load]);

  const oldest = feed.rows[0]?.flow.time ?? "";
  const older = useCallback(() => void load(oldest), [load, oldest]);
  return { feed, line, problem, older: past && more ? older : null };
}

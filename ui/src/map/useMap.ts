import { useEffect, useState } from "react";
import { asked, get, Problem } from "../api/client";
import { follow, type Line } from "../api/stream";
import type { MapDelta, MapState } from "../api/types";
import { begin, proceed, type Shown } from "./state";

export type Followed = { shown: Shown | null; line: Line; problem: Problem | null };

/** The map of these namespaces: live with what was used in the last `window` seconds, or of the time between `since` and `until`. */
export function useMap(namespaces: string[], since: string, until: string, window: number): Followed {
  const [state, setState] = useState<Followed>({ shown: null, line: "connecting", problem: null });
  const query: [string, string][] = namespaces.map((namespace) => ["namespace", namespace]);
  const past = since || until ? asked("map", [...query, ["since", since], ["until", until]]) : "";
  const live = asked("map/stream", [...query, ["window", String(window)]]);

  useEffect(() => {
    setState({ shown: null, line: "connecting", problem: null });
    if (past) {
      const gone = new AbortController();
      get<MapState>(past, gone.signal).then(
        (found) => setState({ shown: begin(found), line: "open", problem: null }),
        (error) =>
          !gone.signal.aborted &&
          setState({
            shown: null,
            line: "lost",
            problem: error instanceof Problem ? error : new Problem(String(error)),
          }),
      );
      return () => gone.abort();
    }
    return follow(
      live,
      {
        map: (found: MapState) => setState({ shown: begin(found), line: "open", problem: null }),
        delta: (delta: MapDelta) =>
          setState((old) => (old.shown ? { ...old, shown: proceed(old.shown, delta) } : old)),
      },
      (line, why) =>
        setState((old) => ({
          ...old,
          line,
          problem: why ? new Problem(why) : line === "open" ? null : old.problem,
        })),
    );
  }, [past, live]);
  return state;
}

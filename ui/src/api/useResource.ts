import { useCallback, useEffect, useState } from "react";
import { get, Problem } from "./client";

export type Resource<T> = { data: T | null; problem: Problem | null; loading: boolean; reload: () => void };

/** What the server answers to GET `path`; asked again every `every` seconds while the page is looked at. */
export function useResource<T>(path: string | null, every = 0): Resource<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; problem: Problem | null }>({
    path,
    data: null,
    problem: null,
  });
  const [asked, setAsked] = useState(0);
  const reload = useCallback(() => setAsked((count) => count + 1), []);

  // biome-ignore lint/correctness/useExhaustiveDependencies: `asked` asks again for the same
  useEffect(() => {
    if (path === null) return;
    const gone = new AbortController();
    const ask = async () => {
      try {
        const data = await get<T>(path, gone.signal);
        setState({ path, data, problem: null });
      } catch (error) {
        if (gone.signal.aborted) return;
        const problem = error instanceof Problem ? error : new Problem(String(error));
        setState((old) => ({ path, data: old.path === path ? old.data : null, problem }));
      }
    };
    void ask();
    const timer = every
      ? window.setInterval(() => document.visibilityState === "visible" && void ask(), every * 1000)
      : 0;
    return () => {
      gone.abort();
      window.clearInterval(timer);
    };
  }, [path, every, asked]);

  const current = state.path === path;
  const data = current ? state.data : null;
  const problem = current ? state.problem : null;
  return { data, problem, loading: path !== null && data === null && problem === null, reload };
}

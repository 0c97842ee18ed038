import { useCallback, useEffect, useState } from "react";
import { get, Problem } from "./client";

export type Resource<T> = { data: T | null; problem: Problem | null; loading: boolean; reload: () => void };

/** What the server answers to GET `path`; asked again `every` seconds after each answer, while the page is looked at. */
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
    let timer = 0;
    const ask = async () => {
      if (document.visibilityState === "visible" || !timer) await once();
      // Only after the answer: who is slow is not asked several times at once.
      if (every && !gone.signal.aborted) timer = window.setTimeout(ask, every * 1000);
    };
    const once = async () => {
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
    return () => {
      gone.abort();
      window.clearTimeout(timer);
    };
  }, [path, every, asked]);

  const current = state.path === path;
  const data = current ? state.data : null;
  const problem = current ? state.problem : null;
  return { data, problem, loading: path !== null && data === null && problem === null, reload };
}

import { useEffect, useState } from "react";
import { Problem, post } from "../api/client";
import type { Validation } from "../api/types";

/** How long nobody has to write before the text is looked at, in ms. */
const QUIET = 350;

export function useValidation(yaml: string): { validation: Validation | null; problem: Problem | null } {
  const [state, setState] = useState<{ validation: Validation | null; problem: Problem | null }>({
    validation: null,
    problem: null,
  });
  useEffect(() => {
    if (!yaml.trim()) {
      setState({ validation: null, problem: null });
      return;
    }
    const gone = new AbortController();
    const timer = window.setTimeout(() => {
      post<Validation>("policies/validate", { yaml }, gone.signal).then(
        (validation) => setState({ validation, problem: null }),
        (error) =>
          gone.signal.aborted ||
          setState({
            validation: null,
            problem: error instanceof Problem ? error : new Problem(String(error)),
          }),
      );
    }, QUIET);
    return () => {
      gone.abort();
      window.clearTimeout(timer);
    };
  }, [yaml]);
  return state;
}

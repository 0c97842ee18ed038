import { createContext, type ReactNode, useContext } from "react";
import type { Meta, Session } from "../api/types";

type Known = { session: Session; meta: Meta };

const Context = createContext<Known | null>(null);

export function Known({ session, meta, children }: Known & { children: ReactNode }) {
  return <Context value={{ session, meta }}>{children}</Context>;
}

/** Who is here, and what there is to choose from; only below `Known`. */
export function useKnown(): Known {
  const known = useContext(Context);
  if (!known) throw new Error("useKnown outside of Known");
  return known;
}

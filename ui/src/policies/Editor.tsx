import { useEffect, useRef } from "react";
import type { Finding, Validation } from "../api/types";
import type { Mounted } from "./codemirror";
import styles from "./Editor.module.css";

type Props = { text: string; onChange: (text: string) => void; validation: Validation | null };

/**
 * An editor for YAML that shows what is wrong where it is.
 *
 * It stands in a shadow root, where CodeMirror adopts its style sheets: no policy about content has to allow inline
 * styles for it. It is loaded when it is needed first.
 */
export function Editor({ text, onChange, validation }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const mounted = useRef<Mounted | null>(null);
  const latest = useRef({ text, onChange, validation });
  useEffect(() => {
    latest.current = { text, onChange, validation };
    mounted.current?.update(text, marks(validation));
  });
  useEffect(() => {
    let over = false;
    void import("./codemirror").then(({ mount }) => {
      if (over || !place.current) return;
      const now = latest.current;
      mounted.current = mount(place.current, now.text, (changed) => latest.current.onChange(changed));
      mounted.current.update(now.text, marks(now.validation));
    });
    return () => {
      over = true;
      mounted.current?.destroy();
      mounted.current = null;
    };
  }, []);
  return <div className={styles.editor} ref={place} />;
}

export type Mark = { line: number; column: number; severity: "error" | "warning" | "info"; message: string };

const SEVERITIES: Record<Finding["severity"], Mark["severity"]> = {
  error: "error",
  warning: "warning",
  note: "info",
};

function marks(validation: Validation | null): Mark[] {
  if (!validation) return [];
  return [
    ...validation.problems.map(({ line, column, message, remedy }) => ({
      line,
      column,
      severity: "error" as const,
      message: remedy ? `${message}; ${remedy}` : message,
    })),
    ...validation.findings.map(({ line, column, severity, code, title, remedy }) => ({
      line,
      column,
      severity: SEVERITIES[severity],
      message: `${code}: ${title}${remedy ? `. ${remedy}` : ""}`,
    })),
  ];
}

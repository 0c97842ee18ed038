/** Small parts that all views are made of. */

import type { ButtonHTMLAttributes, ReactNode } from "react";
import { useEffect, useState } from "react";
import type { Problem } from "../api/client";
import type { Absent } from "../api/types";
import { Icon, type IconName } from "./Icon";
import styles from "./parts.module.css";

type ButtonProps = ButtonHTMLAttributes<HTMLButtonElement> & {
  look?: "plain" | "primary" | "quiet";
  icon?: IconName;
};

export function Button({ look = "plain", icon, children, className = "", ...rest }: ButtonProps) {
  const kind = look === "plain" ? "" : styles[look];
  return (
    <button className={`${styles.button} ${kind} ${className}`} type="button" {...rest}>
      {icon && <Icon name={icon} />}
      {children}
    </button>
  );
}

export function ButtonLink({ href, icon, children }: { href: string; icon?: IconName; children: ReactNode }) {
  return (
    <a className={styles.button} href={href}>
      {icon && <Icon name={icon} />}
      {children}
    </a>
  );
}

export function CopyButton({
  text,
  children = "Copy",
}: {
  text: string | (() => string);
  children?: ReactNode;
}) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = window.setTimeout(() => setDone(false), 1500);
    return () => window.clearTimeout(timer);
  }, [done]);
  const copy = async () => {
    await navigator.clipboard.writeText(typeof text === "string" ? text : text());
    setDone(true);
  };
  return (
    <Button icon={done ? "check" : "copy"} onClick={copy}>
      {done ? "Copied" : children}
    </Button>
  );
}

export type Tone = "good" | "bad" | "tried" | "aside";

const TONES: Record<string, Tone> = {
  FORWARDED: "good",
  TRANSLATED: "good",
  REDIRECTED: "aside",
  TRACED: "aside",
  AUDIT: "tried",
  DROPPED: "bad",
  ERROR: "bad",
};

export function tone(verdict: string): Tone {
  return TONES[verdict] ?? "aside";
}

const SIGNS: Record<Tone, string> = {
  good: "M3 7h7M7.5 4 10.5 7 7.5 10",
  bad: "M4 4l6 6M10 4l-6 6",
  tried: "M7 3v5M7 10.5v.1",
  aside: "M3 4.5h3.5L9 9.500h2",
};

/** A verdict by colour, sign and word. */
export function Verdict({ verdict, text }: { verdict: string; text?: string }) {
  const kind = tone(verdict);
  return (
    <span className={`${styles.verdict} ${styles[kind]}`}>
      <svg
        aria-hidden="true"
        fill="none"
        height="14"
        stroke="currentColor"
        strokeLinecap="round"
        strokeLinejoin="round"
        strokeWidth="1.7"
        viewBox="0 0 14 14"
        width="14"
      >
        <path d={SIGNS[kind]} />
      </svg>
      {text ?? verdict}
    </span>
  );
}

export function Tag({ children, title }: { children: ReactNode; title?: string }) {
  return (
    <span className={styles.tag} title={title}>
      {children}
    </span>
  );
}

export function Notice({ tone: kind, children }: { tone?: "bad" | "tried"; children: ReactNode }) {
  return (
    <div
      className={`${styles.notice} ${kind ? styles[kind] : ""}`}
      role={kind === "bad" ? "alert" : "status"}
    >
      <Icon name="warning" />
      <div>{children}</div>
    </div>
  );
}

export function ProblemNotice({ problem }: { problem: Problem }) {
  return (
    <Notice tone="bad">
      <p>{problem.message}</p>
      {problem.remedy && <p className="muted">{problem.remedy}</p>}
    </Notice>
  );
}

/** Of whom flows are missing, and how many got lost: what is shown may be less than what there was. */
export function Missing({ absent, lost }: { absent: Absent[]; lost: number }) {
  if (absent.length === 0 && lost === 0) return null;
  return (
    <Notice tone="tried">
      {absent.map(({ node, why }) => (
        <p key={node}>
          No flows from <b>{node}</b>: {why}
        </p>
      ))}
      {lost > 0 && <p>{lost.toLocaleString("en")} events were lost on the way and are not shown.</p>}
    </Notice>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={styles.empty}>
      <div>
        <h2>{title}</h2>
        {children && <p>{children}</p>}
      </div>
    </div>
  );
}

/** Between two ends; read out as "to". */
export function To() {
  return (
    <>
      <span aria-hidden="true"> → </span>
      <span className="visually-hidden"> to </span>
    </>
  );
}

/** Names and values; those without a value are left out. */
export function Facts({ facts }: { facts: [string, ReactNode][] }) {
  const said = facts.filter(
    ([, value]) => value !== undefined && value !== null && value !== "" && value !== false,
  );
  return (
    <dl className={styles.facts}>
      {said.map(([name, value]) => (
        <div key={name} style={{ display: "contents" }}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Section({
  title,
  aside,
  children,
}: {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
}) {
  return (
    <section className={styles.section}>
      <h3>
        {title}
        {aside}
      </h3>
      {children}
    </section>
  );
}

type PanelProps = {
  title: ReactNode;
  line?: ReactNode;
  label: string;
  onClose?: () => void;
  children: ReactNode;
};

export function Panel({ title, line, label, onClose, children }: PanelProps) {
  return (
    <aside aria-label={label} className={styles.panel}>
      <header>
        <div>
          <h2>{title}</h2>
          {line && <p>{line}</p>}
        </div>
        {onClose && <Button aria-label="Close" icon="close" look="quiet" onClick={onClose} />}
      </header>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard */}
      <div className={styles.body} tabIndex={0}>
        {children}
      </div>
    </aside>
  );
}

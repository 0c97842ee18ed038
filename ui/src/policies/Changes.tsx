import type { Change, Half, Preview } from "../api/types";
import { ago, plural } from "../parts/numbers";
import { Missing, type Tone } from "../parts/parts";
import styles from "./Changes.module.css";
import { PolicyLink } from "./PolicyLink";

type Props = { preview: Preview; title: string; query: URLSearchParams };

export function Changes({ preview, title, query }: Props) {
  const { breaks, opens, depends, unchanged, stale, absent, lost } = preview;
  const all = breaks.length + opens.length + depends.length + unchanged;
  return (
    <section aria-label="Preview" className={styles.changes} role="status">
      <h2>{title}</h2>
      <p>
        {breaks.length + opens.length + depends.length === 0
          ? `Nothing would change: ${plural(unchanged, "edge")} stay as they are.`
          : `${unchanged} of ${plural(all, "edge")} stay as they are.`}{" "}
        {stale > 0 && `${plural(stale, "edge")} seen under other policies than today's.`}
      </p>
      <Missing absent={absent} lost={lost} />
      <Group changes={breaks} query={query} title="Would break" tone="bad" />
      <Group changes={depends} query={query} title="Depends on what is asked" tone="tried" />
      <Group changes={opens} query={query} title="Would open" tone="aside" />
    </section>
  );
}

type GroupProps = { title: string; tone: Tone; changes: Change[]; query: URLSearchParams };

function Group({ title, tone, changes, query }: GroupProps) {
  if (changes.length === 0) return null;
  return (
    <>
      <h3 className={styles[tone]}>
        {title} ({changes.length})
      </h3>
      <ul>
        {changes.map((change) => (
          <li
            className={styles.change}
            key={`${change.source.text} ${change.destination.text} ${change.service} ${change.request}`}
          >
            <p>
              <b>{change.source.text}</b> → <b>{change.destination.text}</b>{" "}
              <span className="mono">{change.service}</span> {change.request && <code>{change.request}</code>}
            </p>
            <p className="muted">
              {change.passed + change.refused === 1
                ? "once"
                : `${(change.passed + change.refused).toLocaleString("en")} times`}
              , last {ago(change.last)}
            </p>
            {(["egress", "ingress"] as const).map((direction) => {
              const half = change.after[direction];
              return half && half.verdict !== "passes" ? (
                <Reason direction={direction} half={half} key={direction} query={query} />
              ) : null;
            })}
          </li>
        ))}
      </ul>
    </>
  );
}

function Reason({ direction, half, query }: { direction: string; half: Half; query: URLSearchParams }) {
  const verb =
    half.verdict === "depends"
      ? "is looked at by a proxy because of"
      : half.by_default
        ? "is allowed by no rule, and closed by"
        : "is denied by";
  return (
    <p className="muted">
      {direction} {verb}{" "}
      {half.policies.map((policy, at) => (
        <span key={`${policy.kind}/${policy.namespace}/${policy.name}/${policy.rule}`}>
          {at > 0 && ", "}
          <PolicyLink policy={policy} query={query} />
        </span>
      ))}
    </p>
  );
}

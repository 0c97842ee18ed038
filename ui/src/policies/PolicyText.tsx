import { useState } from "react";
import { asked } from "../api/client";
import type { PolicyName, PolicyText as Text } from "../api/types";
import { useResource } from "../api/useResource";
import { Icon } from "../parts/Icon";
import { ProblemNotice } from "../parts/parts";
import { PolicyLink } from "./PolicyLink";
import styles from "./PolicyText.module.css";
import { ruleLines } from "./ruleLines";

type Props = { policy: PolicyName; query: URLSearchParams; folded: boolean; readable: boolean };

/** A policy that decided, with its text, in which the rule that did is marked. */
export function PolicyText({ policy, query, folded, readable }: Props) {
  const [open, setOpen] = useState(!folded);
  return (
    <div className={styles.policy}>
      <div className={styles.name}>
        {readable && (
          <button
            aria-expanded={open}
            aria-label={`Text of ${policy.name}`}
            onClick={() => setOpen(!open)}
            type="button"
          >
            <Icon name={open ? "down" : "right"} size={12} />
          </button>
        )}
        <span>
          <PolicyLink policy={policy} query={query} />
        </span>
      </div>
      {open && readable && <Body policy={policy} />}
    </div>
  );
}

function Body({ policy: { kind = "", namespace = "", name, rule = "" } }: { policy: PolicyName }) {
  const { data, problem } = useResource<Text>(
    asked("policy", [
      ["kind", kind],
      ["namespace", namespace],
      ["name", name],
    ]),
  );
  if (problem) return <ProblemNotice problem={problem} />;
  if (!data) return null;
  const marked = ruleLines(data.yaml, rule);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard
    <pre className={styles.text} tabIndex={0}>
      {data.yaml
        .trimEnd()
        .split("\n")
        .map((line, at) => {
          const here = marked !== null && at >= marked.first && at <= marked.last;
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: a line has no other name
            <span className={here ? styles.marked : ""} key={at}>
              {line}
              {"\n"}
            </span>
          );
        })}
    </pre>
  );
}

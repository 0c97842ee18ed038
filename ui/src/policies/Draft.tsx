import { useState } from "react";
import { asked, Problem, post } from "../api/client";
import type { PolicyLine, PolicyText, Preview, Ref, Suggestion } from "../api/types";
import { useResource } from "../api/useResource";
import { Button, CopyButton, Empty, Notice, ProblemNotice } from "../parts/parts";
import { changed, link } from "../place/place";
import { Changes } from "./Changes";
import styles from "./Draft.module.css";
import { Editor } from "./Editor";
import { Findings } from "./Findings";
import { refText } from "./PolicyLink";
import { useValidation } from "./useValidation";

type Props = { policy: Ref | null; line: PolicyLine | undefined; query: URLSearchParams };

/** A policy's text, which may be changed here, and what such a change would mean; it is never applied. */
export function Draft({ policy, line, query }: Props) {
  const path =
    policy &&
    asked("policy", [
      ["kind", policy.kind],
      ["namespace", policy.namespace],
      ["name", policy.name],
    ]);
  const { data, problem } = useResource<PolicyText>(path);
  if (problem) return <ProblemNotice problem={problem} />;
  if (policy && !data) return null;
  return <Written line={line} original={data?.yaml ?? ""} policy={policy} query={query} />;
}

function Written({ policy, line, query, original }: Props & { original: string }) {
  const [yaml, setYaml] = useState(original);
  const name = policy ? policy.name : "New policy";
  const under = policy ? [policy.kind, policy.namespace || "cluster-wide"].join(" · ") : "a draft";
  return (
    <div className={styles.page}>
      <header className={styles.head}>
        <div>
          <h2>{name}</h2>
          <p className="muted">
            {under}
            {line && line.closes.length > 0 && ` · closes ${line.closes.join(" and ")}`}
            {line?.audit && " · only tried"}
          </p>
        </div>
        <div className={styles.actions}>
          {yaml !== original && policy && <Button onClick={() => setYaml(original)}>Undo the changes</Button>}
          <CopyButton text={yaml}>Copy YAML</CopyButton>
        </div>
      </header>
      {line?.problem && (
        <Notice tone="bad">
          <p>{line.problem}</p>
        </Notice>
      )}
      {line && line.selects.length > 0 && (
        <p className={styles.selects}>
          Selects{" "}
          {line.selects.map((id, at) => (
            <span key={id}>
              {at > 0 && ", "}
              <a href={link("policies", changed(query, { policy: null, workload: id }))}>{id}</a>
            </span>
          ))}
        </p>
      )}
      <Workbench changed={yaml !== original} onChange={setYaml} policy={policy} query={query} yaml={yaml} />
    </div>
  );
}

type BenchProps = {
  yaml: string;
  onChange: (yaml: string) => void;
  policy: Ref | null;
  changed: boolean;
  query: URLSearchParams;
};

type Asked = { what: "draft" | "delete"; preview: Preview };

/** The editor, what is wrong with the text, and what it would do. */
export function Workbench({ yaml, onChange, policy, changed: isChanged, query }: BenchProps) {
  const { validation, problem } = useValidation(yaml);
  const [found, setFound] = useState<Asked | null>(null);
  const [trouble, setTrouble] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const [since, setSince] = useState(3600);
  const ask = async (what: Asked["what"]) => {
    setBusy(true);
    setTrouble(null);
    setFound(null);
    try {
      const body = what === "draft" ? { yaml, since } : { yaml: "", delete: [policy], since };
      setFound({ what, preview: await post<Preview>("policies/preview", body) });
    } catch (error) {
      setFound(null);
      setTrouble(error instanceof Problem ? error : new Problem(String(error)));
    } finally {
      setBusy(false);
    }
  };
  const suggest = async () => {
    const namespace = query.get("namespace");
    if (!namespace) return;
    setBusy(true);
    try {
      onChange((await post<Suggestion>("policies/suggest", { namespace, since })).yaml);
    } catch (error) {
      setTrouble(error instanceof Problem ? error : new Problem(String(error)));
    } finally {
      setBusy(false);
    }
  };
  const wrong = validation !== null && !validation.valid;
  return (
    <div className={styles.bench}>
      <Editor onChange={onChange} text={yaml} validation={validation} />
      <div className={styles.side}>
        <div className={styles.ask}>
          <label>
            Against what was recorded in the last{" "}
            <select onChange={(event) => setSince(Number(event.target.value))} value={since}>
              <option value={900}>15 minutes</option>
              <option value={3600}>hour</option>
              <option value={21600}>6 hours</option>
              <option value={86400}>day</option>
            </select>
          </label>
          <div className={styles.actions}>
            <Button
              disabled={busy || wrong || !isChanged || !yaml.trim()}
              look="primary"
              onClick={() => ask("draft")}
            >
              Preview the draft
            </Button>
            {policy && (
              <Button disabled={busy} onClick={() => ask("delete")}>
                Preview without it
              </Button>
            )}
            {!policy && query.has("namespace") && (
              <Button disabled={busy} onClick={suggest}>
                Suggest for {query.get("namespace")}
              </Button>
            )}
          </div>
        </div>
        {problem && <ProblemNotice problem={problem} />}
        {trouble && <ProblemNotice problem={trouble} />}
        {validation && <Findings validation={validation} />}
        {found ? (
          <Changes
            preview={found.preview}
            query={query}
            title={found.what === "delete" && policy ? `Without ${refText(policy)}` : "With this text"}
          />
        ) : (
          !trouble && (
            <Empty title={busy ? "Looking through the record" : "What would change?"}>
              {busy
                ? "All flows of this time are held against the policies."
                : "A preview holds the draft against the recorded traffic: what would break, what would open."}
            </Empty>
          )
        )}
      </div>
    </div>
  );
}

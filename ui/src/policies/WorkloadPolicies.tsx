import { useState } from "react";
import { asked, Problem, post } from "../api/client";
import type { Edge, MapState, PolicyLine, Suggestion, Workload } from "../api/types";
import { useResource } from "../api/useResource";
import { EdgeList } from "../map/EdgeList";
import { begin, totals } from "../map/state";
import { plural } from "../parts/numbers";
import { Button, ButtonLink, Notice, ProblemNotice, Section, Tag } from "../parts/parts";
import { across, changed, go, link } from "../place/place";
import { Workbench } from "./Draft";
import { refText } from "./PolicyLink";
import styles from "./WorkloadPolicies.module.css";

type Props = { id: string; workload: Workload | undefined; query: URLSearchParams };

const REFUSED = new Set(["DROPPED", "AUDIT"]);

/** What selects a workload, what of its traffic is refused, and what policy would let pass just what was seen. */
export function WorkloadPolicies({ id, workload, query }: Props) {
  const [draft, setDraft] = useState<Suggestion | null>(null);
  const [yaml, setYaml] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const policies = useResource<PolicyLine[]>(asked("policies", [["card", id]]), 15);
  const namespace = workload?.namespace ?? "";
  const map = useResource<MapState>(
    namespace
      ? asked("map", [
          ["namespace", namespace],
          ["window", "3600"],
        ])
      : null,
    10,
  );
  const shown = map.data ? begin(map.data) : null;
  const touches = (edge: Edge) => edge.source === id || edge.destination === id;
  const refused = shown
    ? [...shown.edges.values()].filter((edge) => touches(edge) && totals(edge, REFUSED).size > 0)
    : [];
  const suggest = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const found = await post<Suggestion>("policies/suggest", { namespace, card: id });
      setDraft(found);
      setYaml(found.yaml);
    } catch (error) {
      setProblem(error instanceof Problem ? error : new Problem(String(error)));
    } finally {
      setBusy(false);
    }
  };
  const closed = workload?.closed ?? [];
  return (
    <div className={styles.page}>
      <header className={styles.head}>
        <div>
          <h2>{workload?.name ?? id}</h2>
          <p className="muted">
            {workload && `${workload.kind} in ${workload.namespace} · ${plural(workload.pods, "pod")} · `}
            {closed.length === 2
              ? "closed in both directions"
              : closed.length
                ? `closed for ${closed[0]}, open for ${closed[0] === "ingress" ? "egress" : "ingress"}`
                : "no policy closes it"}
          </p>
        </div>
        <div className={styles.actions}>
          <ButtonLink href={link("map", changed(across(query), { card: id }))} icon="map">
            On the map
          </ButtonLink>
          <Button disabled={busy || !namespace} look="primary" onClick={suggest}>
            {busy ? "Looking through the record" : "Suggest a policy"}
          </Button>
        </div>
      </header>
      {problem && <ProblemNotice problem={problem} />}
      {draft ? (
        <>
          <div className={styles.note}>
            <p>It lets pass what was seen in the last hour, and nothing else. It is not applied.</p>
            {draft.unsaid.length > 0 && (
              <Notice tone="tried">
                <p>No word for: {draft.unsaid.join("; ")}</p>
              </Notice>
            )}
            <Button icon="close" onClick={() => setDraft(null)}>
              Close the suggestion
            </Button>
          </div>
          <Workbench changed onChange={setYaml} policy={null} query={query} yaml={yaml} />
        </>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard
        <div className={styles.body} tabIndex={0}>
          <Section title="Selected by">
            {policies.problem && <ProblemNotice problem={policies.problem} />}
            {policies.data?.length === 0 && (
              <p className="muted">No policy selects it: all it does is allowed.</p>
            )}
            {policies.data && policies.data.length > 0 && (
              <table className={styles.table}>
                <thead>
                  <tr>
                    <th>Policy</th>
                    <th>Kind</th>
                    <th>Says something about</th>
                    <th>Closes</th>
                  </tr>
                </thead>
                <tbody>
                  {policies.data.map((line) => (
                    <tr key={refText(line)}>
                      <td>
                        <a href={link("policies", changed(query, { workload: null, policy: refText(line) }))}>
                          {line.namespace ? `${line.namespace}/${line.name}` : line.name}
                        </a>
                        {line.audit && <Tag>only tried</Tag>}
                      </td>
                      <td>{line.kind}</td>
                      <td>{line.directions.join(", ")}</td>
                      <td>{line.closes.join(", ") || "nothing"}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )}
          </Section>
          <Section title="Refused, or only tried, in the last hour">
            {map.problem && <ProblemNotice problem={map.problem} />}
            {refused.length && shown ? (
              <EdgeList
                cards={shown.cards}
                edges={refused}
                onSelect={({ edge }) => go(link("map", changed(across(query), { edge })))}
                wanted={REFUSED}
              />
            ) : (
              <p className="muted">Nothing.</p>
            )}
          </Section>
          <Section title="Labels">
            <div className={styles.tags}>
              {(workload?.labels ?? []).map((label) => (
                <Tag key={label}>{label}</Tag>
              ))}
            </div>
          </Section>
        </div>
      )}
    </div>
  );
}

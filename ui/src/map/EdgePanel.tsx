import type { Edge } from "../api/types";
import { ago, bytes, rate } from "../parts/numbers";
import { ButtonLink, Facts, Panel, Section, To, Verdict } from "../parts/parts";
import { across, changed, link } from "../place/place";
import { PolicyLink } from "../policies/PolicyLink";
import { CallTable } from "./CallTable";
import type { Selection } from "./Canvas";
import styles from "./panels.module.css";
import { filtersForEdge, portKey, type Shown } from "./state";

type Props = {
  edge: Edge;
  shown: Shown;
  query: URLSearchParams;
  onSelect: (selection: Selection) => void;
  onClose: () => void;
};

export function EdgePanel({ edge, shown, query, onSelect, onClose }: Props) {
  const [source, destination] = [shown.cards.get(edge.source), shown.cards.get(edge.destination)];
  const kept = changed(across(query), { verdict: null, namespace: null });
  const flows = new URLSearchParams([...filtersForEdge(edge, shown.cards), ...kept]);
  const port = destination?.ports.find((each) => portKey(each) === portKey(edge));
  const end = (id: string, name = id) => (
    <button className={styles.end} onClick={() => onSelect({ card: id, edge: "" })} type="button">
      {name}
    </button>
  );
  return (
    <Panel
      label="Edge"
      line={`${edge.port}/${edge.protocol}${edge.service ? ` by service ${edge.service}` : ""}`}
      onClose={onClose}
      title={
        <>
          {end(edge.source, source?.name)}
          <To />
          {end(edge.destination, destination?.name)}
        </>
      }
    >
      <div className={styles.links}>
        <ButtonLink href={link("flows", flows)} icon="flows">
          Flows
        </ButtonLink>
      </div>
      <Section title="Verdicts">
        <table className={styles.table}>
          <thead>
            <tr>
              <th>Verdict</th>
              <th>Rate</th>
              <th>Count</th>
              <th>Last</th>
            </tr>
          </thead>
          <tbody>
            {Object.entries(edge.verdicts).map(([verdict, count]) => (
              <tr key={verdict}>
                <td>
                  <Verdict verdict={verdict} />
                </td>
                <td>{rate(count.rate)}</td>
                <td>{count.count.toLocaleString("en")}</td>
                <td>{ago(count.last)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Section>
      {Object.keys(edge.reasons).length > 0 && (
        <Section title="Why it was dropped">
          <Facts
            facts={Object.entries(edge.reasons).map(([reason, count]) => [
              reason,
              count.toLocaleString("en"),
            ])}
          />
        </Section>
      )}
      {edge.denied_by.length > 0 && (
        <Section title="Denied by">
          <ul className={styles.policies}>
            {edge.denied_by.map((policy) => (
              <li key={`${policy.kind}/${policy.namespace}/${policy.name}/${policy.rule}`}>
                <PolicyLink policy={policy} query={query} />
              </li>
            ))}
          </ul>
        </Section>
      )}
      {port && port.calls.length > 0 && (
        <Section title="Requests at this port, of all callers">
          <CallTable calls={port.calls} more={port.calls_not_shown} />
        </Section>
      )}
      <Section title="Sent">
        <Facts
          facts={[
            ["By the caller", bytes(edge.bytes)],
            ["In answer", bytes(edge.reply_bytes)],
          ]}
        />
        <p className="muted">Of connections that have ended.</p>
      </Section>
    </Panel>
  );
}

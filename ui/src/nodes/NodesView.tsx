import type { Node, Nodes } from "../api/types";
import { useResource } from "../api/useResource";
import { Icon } from "../parts/Icon";
import { ago, compact, plural, rate } from "../parts/numbers";
import { Empty, Notice, ProblemNotice } from "../parts/parts";
import { link } from "../place/place";
import styles from "./NodesView.module.css";
import { Ways } from "./Ways";

/** How often it is asked anew, in seconds. */
const EVERY = 4;

export function NodesView() {
  const { data, problem } = useResource<Nodes>("nodes", EVERY);
  if (!data) return problem ? <ProblemNotice problem={problem} /> : <Empty title="Asking the nodes" />;
  const ill = data.nodes.filter((node) => node.problems.length > 0);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard
    <div className={styles.view} tabIndex={0}>
      {problem && <ProblemNotice problem={problem} />}
      <p className={ill.length ? styles.ill : styles.well} role="status">
        <Icon name={ill.length ? "warning" : "check"} />
        {ill.length
          ? `${plural(ill.length, "node")} of ${data.nodes.length} not well`
          : `${plural(data.nodes.length, "node")}, all well`}
      </p>
      <div className={styles.frame}>
        <table className={styles.table}>
          <caption className="visually-hidden">Nodes</caption>
          <thead>
            <tr>
              <th>Node</th>
              <th>Agent</th>
              <th>Kernel</th>
              <th className={styles.number}>Endpoints</th>
              <th className={styles.number}>Identities</th>
              <th className={styles.number}>Policies</th>
              <th className={styles.number}>Flows</th>
              <th className={styles.number}>Lost</th>
              <th>Kept</th>
              <th>Since</th>
            </tr>
          </thead>
          <tbody>
            {data.nodes.map((node) => (
              <Line key={node.name} node={node} />
            ))}
          </tbody>
        </table>
      </div>
      {data.nodes.some((node) => node.problems.length + node.lacks.length > 0) && (
        <section className={styles.problems}>
          {data.nodes.flatMap((node) => [
            ...node.problems.map((text) => (
              <Notice key={`${node.name} ${text}`} tone="bad">
                <p>{text}</p>
              </Notice>
            )),
            ...node.lacks.map((text) => (
              <Notice key={`${node.name} lacks ${text}`}>
                <p>
                  <b>{node.name}</b>: {text}
                </p>
              </Notice>
            )),
          ])}
        </section>
      )}
      {data.ways.length > 0 && <Ways names={data.nodes.map((node) => node.name)} ways={data.ways} />}
    </div>
  );
}

function Line({ node: { name, addresses, agent, flows, problems } }: { node: Node }) {
  return (
    <tr>
      <th scope="row">
        <span className={problems.length ? styles.bad : styles.good}>
          <Icon name={problems.length ? "cross" : "check"} size={13} />
        </span>
        <a href={link("flows", new URLSearchParams({ node: name }))}>{name}</a>
        <span className={styles.addresses}>{addresses.join(" ")}</span>
      </th>
      {agent ? (
        <>
          <td>
            {agent.phase}
            {agent.waits_for && <span className="muted">, waits for {agent.waits_for}</span>}{" "}
            <span className="muted">{agent.version}</span>
          </td>
          <td>{agent.kernel}</td>
          <td className={styles.number}>{agent.endpoints.toLocaleString("en")}</td>
          <td className={styles.number}>{agent.identities.toLocaleString("en")}</td>
          <td className={styles.number} title={`${agent.policy_entries} entries in the kernel`}>
            {agent.policies.toLocaleString("en")}
          </td>
        </>
      ) : (
        <td className={styles.bad} colSpan={5}>
          the agent does not answer
        </td>
      )}
      {flows ? (
        <>
          <td className={styles.number}>{rate(flows.rate)}</td>
          <td className={`${styles.number} ${flows.lost ? styles.warn : ""}`}>{compact(flows.lost)}</td>
          <td>
            <meter aria-label={`Flows kept by ${name}`} max={flows.capacity} value={flows.kept} />
            <span className="muted"> {compact(flows.kept)}</span>
          </td>
        </>
      ) : (
        <td className={styles.bad} colSpan={3}>
          the flow server does not answer
        </td>
      )}
      <td>{agent ? ago(agent.started).replace(" ago", "") : ""}</td>
    </tr>
  );
}

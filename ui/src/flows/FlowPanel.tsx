import type { Flow, PolicyName, Row } from "../api/types";
import { bytes, clock, duration, plural } from "../parts/numbers";
import { Button, CopyButton, Facts, Panel, Section, Tag, Verdict } from "../parts/parts";
import { across, changed, go, link } from "../place/place";
import { PolicyText } from "../policies/PolicyText";
import { useKnown } from "../shell/session";
import { filtersOf, serviceText, tell } from "./describe";
import styles from "./FlowPanel.module.css";

type Props = { row: Row; query: URLSearchParams; onClose: () => void };

export function FlowPanel({ row: { id, flow }, query, onClose }: Props) {
  const { session } = useKnown();
  const told = tell(flow);
  const narrow = (more: [string, string][]) =>
    go(link("flows", new URLSearchParams([...across(query), ...more])));
  const from = filtersOf(flow.source, flow.IP?.source, "from_");
  const to = filtersOf(flow.destination, flow.IP?.destination, "to_");
  const deciding: [string, PolicyName[] | undefined][] = [
    ["Denied at the source by", flow.egress_denied_by],
    ["Denied at the destination by", flow.ingress_denied_by],
    ["Allowed at the source by", flow.egress_allowed_by],
    ["Allowed at the destination by", flow.ingress_allowed_by],
  ];
  return (
    <Panel
      label="Flow"
      line={`${clock(flow.time)} · ${flow.event ?? flow.Type ?? ""} · seen by ${flow.node_name ?? "?"}`}
      onClose={onClose}
      title={
        <Verdict
          text={flow.drop_reason_desc ? `${flow.verdict} ${flow.drop_reason_desc}` : flow.verdict}
          verdict={flow.verdict}
        />
      }
    >
      <div className={styles.tools}>
        <Button onClick={() => narrow(from)}>From this source</Button>
        <Button onClick={() => narrow(to)}>To this destination</Button>
        <CopyButton text={() => permalink(id, flow, query)}>Link</CopyButton>
        <CopyButton text={() => JSON.stringify(flow, null, 2)}>JSON</CopyButton>
      </div>
      <Section title="What">
        <p className={styles.what}>{told.what}</p>
        {flow.l7 && <Request flow={flow} />}
        <Facts
          facts={[
            ["Protocol", told.protocol],
            ["Direction", flow.traffic_direction?.toLowerCase()],
            ["Lasted", flow.duration_ns ? duration(flow.duration_ns / 1e9) : ""],
            ["Sent", flow.packets ? `${bytes(flow.bytes ?? 0)} in ${plural(flow.packets, "packet")}` : ""],
            [
              "Answered",
              flow.reply_packets
                ? `${bytes(flow.reply_bytes ?? 0)} in ${plural(flow.reply_packets, "packet")}`
                : "",
            ],
            ["Proxy port", flow.proxy_port],
            ["Time", <code key="time">{flow.time}</code>],
          ]}
        />
      </Section>
      {deciding.map(([title, policies]) =>
        policies?.length ? (
          <Section key={title} title={title}>
            {policies.map((policy) => (
              <PolicyText
                folded={title.startsWith("Allowed")}
                key={`${policy.kind}${policy.namespace}${policy.name}${policy.rule}`}
                policy={policy}
                query={query}
                readable={session.features.policies}
              />
            ))}
          </Section>
        ) : null,
      )}
      <End flow={flow} side="source" />
      <End flow={flow} side="destination" />
    </Panel>
  );
}

function Request({ flow: { l7 } }: { flow: Flow }) {
  const http = l7?.http;
  return (
    <Facts
      facts={[
        ["URL", http?.url && <code>{http.url}</code>],
        ["Version", http?.protocol],
        ["Names", l7?.dns?.cnames?.join(", ")],
        ["Addresses", l7?.dns?.ips?.join(", ")],
        ["Server", l7?.server_name],
        ["Client", l7?.kafka?.client_id],
        ["Reason", l7?.reason],
        ...(http?.headers ?? []).map(({ key, value }): [string, string] => [key, value]),
      ]}
    />
  );
}

function End({ flow, side }: { flow: Flow; side: "source" | "destination" }) {
  const end = flow[side];
  const service = flow[`${side}_service`];
  const ports = flow.l4?.TCP ?? flow.l4?.UDP ?? flow.l4?.SCTP;
  const frontend =
    side === "destination" && flow.IP?.frontend ? `${flow.IP.frontend} port ${flow.IP.frontend_port}` : "";
  return (
    <Section title={side === "source" ? "Source" : "Destination"}>
      <Facts
        facts={[
          ["Pod", end?.pod_name && `${end.namespace}/${end.pod_name}`],
          ["Workload", end?.workloads?.map(({ name, kind }) => `${kind} ${name}`).join(", ")],
          ["Service", service && `${serviceText(service)}${service.port ? ` port ${service.port}` : ""}`],
          ["Called as", frontend],
          ["Address", flow.IP?.[side]],
          ["Port", ports?.[`${side}_port`]],
          [
            "Seen outside as",
            side === "source" && flow.IP?.source_xlated
              ? `${flow.IP.source_xlated} port ${flow.IP.source_port_xlated}`
              : "",
          ],
          ["Identity", end?.identity],
          ["Node", end?.node_name],
        ]}
      />
      <div className={styles.tags}>
        {(end?.labels ?? []).map((label) => (
          <Tag key={label} title={label}>
            {label}
          </Tag>
        ))}
      </div>
    </Section>
  );
}

/** An address that still shows this flow when it is no longer among the newest. */
function permalink(id: string, flow: Flow, query: URLSearchParams): string {
  const at = Date.parse(flow.time);
  const around = {
    since: new Date(at - 500).toISOString(),
    until: new Date(at + 500).toISOString(),
    flow: id,
  };
  return new URL(link("flows", changed(query, around)), location.href).href;
}

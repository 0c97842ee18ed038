/** What a flow says, in the words of a row: who asked whom for what, and what became of it. */

import type { Endpoint, Flow, PolicyName, Service } from "../api/types";
import { bytes, duration } from "../parts/numbers";

export type Party = { name: string; detail: string };
export type Told = {
  /** The client, whichever way the packet went. */
  source: Party;
  destination: Party;
  /** "8080", "" where there are no ports. */
  port: string;
  protocol: string;
  what: string;
  deniedBy: PolicyName[];
  allowedBy: PolicyName[];
};

const known = new WeakMap<Flow, Told>();

export function tell(flow: Flow): Told {
  let told = known.get(flow);
  if (!told) {
    told = describe(flow);
    known.set(flow, told);
  }
  return told;
}

function describe(flow: Flow): Told {
  const swap = flow.is_reply === true;
  const ends = [
    party(flow.source, flow.IP?.source, flow.source_service),
    party(flow.destination, flow.IP?.destination, flow.destination_service),
  ] as const;
  const [source, destination] = swap ? [ends[1], ends[0]] : ends;
  const [protocol, port] = transport(flow, swap);
  return {
    source,
    destination,
    port,
    protocol,
    what: what(flow),
    deniedBy: unique([...(flow.egress_denied_by ?? []), ...(flow.ingress_denied_by ?? [])]),
    allowedBy: unique([...(flow.egress_allowed_by ?? []), ...(flow.ingress_allowed_by ?? [])]),
  };
}

function party(end: Endpoint | undefined, address = "", service?: Service): Party {
  const called = service ? serviceText(service) : "";
  if (end?.pod_name) {
    const name = end.namespace ? `${end.namespace}/${end.pod_name}` : end.pod_name;
    return { name, detail: called || address };
  }
  const roles = (end?.labels ?? [])
    .filter((label) => label.startsWith("reserved:"))
    .map((label) => label.slice(9));
  if (called) return { name: called, detail: address };
  return { name: address || roles.join(", ") || "unknown", detail: address ? roles.join(", ") : "" };
}

export function serviceText({ namespace, name }: Service): string {
  return namespace ? `${namespace}/${name}` : name;
}

function transport({ l4, IP }: Flow, swap: boolean): [string, string] {
  for (const protocol of ["TCP", "UDP", "SCTP"] as const) {
    const ports = l4?.[protocol];
    if (ports) return [protocol, String((swap ? ports.source_port : ports.destination_port) ?? "")];
  }
  if (l4?.ICMPv4) return ["ICMPv4", ""];
  if (l4?.ICMPv6) return ["ICMPv6", ""];
  return [IP?.protocol ? `protocol ${IP.protocol}` : "", ""];
}

function what(flow: Flow): string {
  const { l7 } = flow;
  const took = l7?.latency_ns ? ` · ${duration(l7.latency_ns / 1e9)}` : "";
  if (l7?.http) {
    const { method = "", url = "", code, grpc_status } = l7.http;
    const status =
      grpc_status !== undefined && grpc_status !== null ? `grpc ${grpc_status}` : code ? String(code) : "";
    return `${method} ${pathOf(url)}${status ? ` → ${status}` : ""}${took}`;
  }
  if (l7?.dns) {
    const { query = "", qtypes = [], rcode, ips = [] } = l7.dns;
    const answer =
      l7.type === "RESPONSE" ? ` → ${rcode ? `rcode ${rcode}` : ips.join(", ") || "no addresses"}` : "";
    return `${qtypes.join(", ")} ${query}${answer}${took}`.trim();
  }
  if (l7?.kafka) {
    const { api_key = "", topic = "", error_code } = l7.kafka;
    return `${api_key} ${topic}${error_code ? ` → error ${error_code}` : ""}${took}`.trim();
  }
  if (l7?.server_name) return `TLS ${l7.server_name}`;
  if (flow.event === "end") {
    const sent = `${bytes(flow.bytes ?? 0)} ↑ ${bytes(flow.reply_bytes ?? 0)} ↓`;
    return `ended after ${duration((flow.duration_ns ?? 0) / 1e9)} · ${sent}`;
  }
  if (flow.event === "new" && flow.l4?.TCP) return "connection opened";
  if (flow.event === "drop") return flow.drop_reason_desc || "dropped";
  if (l7) return l7.reason || l7.type.toLowerCase();
  return flow.Summary?.replace("TCP Flags: ", "") || flow.event || "";
}

/** Path and query of a URL; the text itself where it is none. */
export function pathOf(url: string): string {
  const found = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*(.*)$/i.exec(url);
  return found ? found[1] || "/" : url;
}

function unique(policies: PolicyName[]): PolicyName[] {
  const text = (policy: PolicyName) =>
    JSON.stringify([policy.kind, policy.namespace, policy.name, policy.rule]);
  return [...new Map(policies.map((policy) => [text(policy), policy])).values()];
}

/** The filters that mean flows of such an end. */
export function filtersOf(
  end: Endpoint | undefined,
  address: string | undefined,
  side: "from_" | "to_",
): [string, string][] {
  if (end?.pod_name)
    return [[`${side}pod`, end.namespace ? `${end.namespace}/${end.pod_name}` : end.pod_name]];
  return address ? [[`${side}ip`, address]] : [];
}

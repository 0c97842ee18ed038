/** A made-up cluster for `npm run mock`: the online boutique under load, one policy that denies a little. */

import type { Card, Edge, Endpoint, Flow, Policy, Row } from "../src/api/types";

type Way = {
  source: string;
  destination: string;
  port: number;
  protocol: "TCP" | "UDP";
  rate: number;
  verdict: string;
  calls?: string[];
  kind?: "http" | "dns";
  service?: string;
};

const way = (
  source: string,
  destination: string,
  port: number,
  rate: number,
  calls?: string[],
  verdict = "FORWARDED",
): Way => ({
  source,
  destination,
  port,
  protocol: "TCP",
  rate,
  verdict: calls && verdict === "FORWARDED" ? "REDIRECTED" : verdict,
  ...(calls ? { calls, kind: "http" } : {}),
  service: `shop/${destination}`,
});

export const WAYS: Way[] = [
  way("loadgenerator", "frontend", 8080, 22, [
    "GET /",
    "GET /product/{id}",
    "POST /cart",
    "POST /cart/checkout",
  ]),
  way("world", "frontend", 8080, 3, ["GET /"]),
  way("frontend", "productcatalogservice", 3550, 34, [
    "POST /hipstershop.ProductCatalogService/ListProducts",
    "POST /hipstershop.ProductCatalogService/GetProduct",
  ]),
  way("frontend", "currencyservice", 7000, 41),
  way("frontend", "cartservice", 7070, 18),
  way("frontend", "recommendationservice", 8080, 12),
  way("frontend", "shippingservice", 50051, 5),
  way("frontend", "checkoutservice", 5050, 2.5),
  way("frontend", "adservice", 9555, 11),
  way("checkoutservice", "productcatalogservice", 3550, 2.4),
  way("checkoutservice", "cartservice", 7070, 4.8),
  way("checkoutservice", "currencyservice", 7000, 2.6),
  way("checkoutservice", "paymentservice", 50051, 2.4),
  way("checkoutservice", "shippingservice", 50051, 2.4),
  way("checkoutservice", "emailservice", 8080, 2.4),
  way("recommendationservice", "productcatalogservice", 3550, 12),
  way("cartservice", "redis-cart", 6379, 9),
  way("adservice", "redis-cart", 6379, 0.6, undefined, "DROPPED"),
  way("emailservice", "world", 25, 0.3, undefined, "AUDIT"),
  way("frontend", "paymentservice", 50051, 0.2, undefined, "DROPPED"),
  ...["frontend", "checkoutservice", "loadgenerator", "recommendationservice"].map(
    (name): Way => ({
      source: name,
      destination: "kube-dns",
      port: 53,
      protocol: "UDP",
      rate: 4,
      verdict: "FORWARDED",
      kind: "dns",
      calls: ["frontend.shop.svc.cluster.local.", "cartservice.shop.svc.cluster.local."],
      service: "kube-system/kube-dns",
    }),
  ),
];

const namespaceOf = (name: string) => (name === "kube-dns" ? "kube-system" : name === "world" ? "" : "shop");
const idOf = (name: string) =>
  name === "world" ? "reserved:world" : `${namespaceOf(name)}/Deployment/${name}`;
export const NAMES = [...new Set(WAYS.flatMap((each) => [each.source, each.destination]))];
const DENIES: Policy = {
  kind: "CiliumNetworkPolicy",
  namespace: "shop",
  name: "redis-cart",
  rule: "spec.ingress[0]",
};
const ALLOWS: Policy = { kind: "NetworkPolicy", namespace: "shop", name: "frontend", rule: "spec.egress[2]" };

const started = Date.now();

export function cards(): Card[] {
  return NAMES.map((name) => ({
    id: idOf(name),
    kind: name === "world" ? "world" : "workload",
    namespace: namespaceOf(name),
    name,
    workload_kind: name === "world" ? "" : "Deployment",
    labels:
      name === "world"
        ? ["reserved:world"]
        : [`k8s:app=${name}`, `k8s:io.kubernetes.pod.namespace=${namespaceOf(name)}`],
    pods: name === "world" ? [] : [`${name}-7c9d5b6f4-x2x${name.length}q`],
    ports: portsOf(name),
  }));
}

function portsOf(name: string): Card["ports"] {
  const ways = WAYS.filter((each) => each.destination === name);
  return [...new Set(ways.map((each) => each.port))].map((port) => {
    const among = ways.filter((each) => each.port === port);
    const most = among.toSorted((a, b) => (b.calls?.length ?? 0) - (a.calls?.length ?? 0))[0] as Way;
    return {
      port,
      protocol: most.protocol,
      calls_not_shown: 0,
      calls: (most.calls ?? []).map((what, at) => ({
        kind: most.kind ?? "http",
        what,
        count: Math.round(most.rate * 200) >> at,
        rate: most.rate / (at + 2),
        dropped: what.includes("checkout") ? 14 : 0,
        failed: what === "POST /cart" ? 3 : 0,
        latency: 0.0021 * (at + 1),
      })),
    };
  });
}

export function edges(): Edge[] {
  const seconds = 60 + (Date.now() - started) / 1000;
  return WAYS.map((each) => {
    const rate = each.rate * (0.85 + Math.random() * 0.3);
    const counted = { count: Math.round(each.rate * seconds), rate, last: new Date().toISOString() };
    const refused = each.verdict === "DROPPED" || each.verdict === "AUDIT";
    return {
      id: `${idOf(each.source)}>${idOf(each.destination)}:${each.port}/${each.protocol}`,
      source: idOf(each.source),
      destination: idOf(each.destination),
      port: each.port,
      protocol: each.protocol,
      service: each.service ?? "",
      kinds: each.kind ? [each.kind] : [],
      verdicts: {
        [each.verdict]: counted,
        ...(each.calls?.some((call) => call.includes("checkout"))
          ? { DROPPED: { count: 14, rate: 0.4, last: counted.last } }
          : {}),
      },
      reasons: each.verdict === "DROPPED" ? { POLICY_DENIED: counted.count } : {},
      denied_by: refused ? [DENIES] : [],
      bytes: counted.count * 412,
      reply_bytes: counted.count * 5120,
    };
  });
}

function end(name: string): Endpoint {
  if (name === "world") return { identity: 2, labels: ["reserved:world"] };
  return {
    ID: 100 + NAMES.indexOf(name),
    identity: 3000 + NAMES.indexOf(name),
    namespace: namespaceOf(name),
    labels: [`k8s:app=${name}`, `k8s:io.kubernetes.pod.namespace=${namespaceOf(name)}`],
    pod_name: `${name}-7c9d5b6f4-x2x${name.length}q`,
    workloads: [{ name, kind: "Deployment" }],
    node_name: `node${1 + (NAMES.indexOf(name) % 2)}`,
  };
}

let serial = 0;

export function flow(each: Way, at: number): Row {
  const id = String(++serial);
  const time = `${new Date(at).toISOString().slice(0, -1)}${String(serial % 1e6).padStart(6, "0")}Z`;
  const ip = (name: string) =>
    name === "world" ? "203.0.113.20" : `10.244.${NAMES.indexOf(name) % 2}.${10 + NAMES.indexOf(name)}`;
  const ports = { source_port: 32768 + ((serial * 7919) % 28000), destination_port: each.port };
  const http = each.kind === "http" && serial % 3 !== 0;
  const call = each.calls?.[serial % each.calls.length] ?? "";
  const dropped = each.verdict === "DROPPED" || (http && call.includes("checkout") && serial % 4 === 0);
  const verdict = dropped ? "DROPPED" : http ? "FORWARDED" : each.verdict;
  const made: Flow = {
    time,
    verdict,
    ...(dropped && !http ? { drop_reason_desc: "POLICY_DENIED" } : {}),
    IP: {
      source: ip(each.source),
      destination: ip(each.destination),
      ipVersion: "IPv4",
      frontend: "10.96.14.3",
      frontend_port: 80,
    },
    l4: each.protocol === "TCP" ? { TCP: { ...ports, flags: { SYN: true } } } : { UDP: ports },
    source: end(each.source),
    destination: end(each.destination),
    Type: http ? "L7" : "L3_L4",
    node_name: `node${1 + (serial % 2)}`,
    ...(each.service && each.destination !== "world"
      ? {
          destination_service: {
            name: each.destination,
            namespace: namespaceOf(each.destination),
            port: "http",
          },
        }
      : {}),
    traffic_direction: serial % 2 ? "INGRESS" : "EGRESS",
    is_reply: false,
    event: http ? "request" : dropped ? "drop" : serial % 2 ? "new" : "end",
    Summary: "TCP Flags: SYN",
  };
  if (dropped || verdict === "AUDIT") made.ingress_denied_by = [DENIES];
  else made.egress_allowed_by = [ALLOWS];
  if (http) {
    const [method = "", path = ""] = call.split(" ");
    made.l7 = {
      type: "REQUEST",
      latency_ns: 2_400_000,
      http: {
        method,
        url: `http://${each.destination}${path}`,
        protocol: "HTTP/1.1",
        code: dropped ? 403 : 200,
        headers: [{ key: "user-agent", value: "<script>alert(1)</script>" }],
      },
    };
  } else if (made.event === "end")
    Object.assign(made, {
      duration_ns: 48_000_000,
      packets: 7,
      bytes: 824,
      reply_packets: 6,
      reply_bytes: 5311,
    });
  return { id, flow: made };
}

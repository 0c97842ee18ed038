/** What the made-up cluster answers to everything that is no stream. */

import type {
  Filter,
  FlowList,
  MapState,
  Meta,
  Nodes,
  PolicyLine,
  Preview,
  Session,
  Suggestion,
  Timeline,
  Validation,
  Workload,
} from "../src/api/types";
import { cards, edges, flow, WAYS } from "./shop.ts";

const filter = (name: string, help: string, sided = false, values?: string[]): Filter => ({
  name,
  sided,
  help,
  ...(values ? { values } : {}),
});

const META: Meta = {
  namespaces: ["default", "kube-system", "shop"],
  nodes: ["node1", "node2"],
  filters: [
    filter("verdict", "FORWARDED, DROPPED and others.", false, [
      "FORWARDED",
      "DROPPED",
      "AUDIT",
      "REDIRECTED",
      "ERROR",
    ]),
    filter("pod", "POD, NAMESPACE/POD (the start of the name is enough) or NAMESPACE/.", true),
    filter("namespace", "The pod's namespace.", true),
    filter("workload", "The pod's workload: NAME or KIND/NAME.", true),
    filter("service", "A service that was called: NAME (its start), NAMESPACE/NAME or NAMESPACE/.", true),
    filter("label", "A selector of labels: app=web,tier!=db.", true),
    filter("identity", "A number, or a reserved name as world or host.", true),
    filter("ip", "An address or a range.", true),
    filter("port", "A port.", true),
    filter("protocol", "tcp, udp, sctp, icmp, icmpv4, icmpv6, a number; http, dns, kafka.", false, [
      "tcp",
      "udp",
      "http",
      "dns",
      "kafka",
    ]),
    filter("node", "The node that saw it."),
    filter("reason", "The reason of a drop, such as POLICY_DENIED.", false, [
      "POLICY_DENIED",
      "SERVICE_BACKEND_NOT_FOUND",
    ]),
    filter("type", "l7, drop, policy-verdict or trace.", false, ["l7", "drop", "policy-verdict", "trace"]),
    filter("http_status", "The status of an answer: 404, or 5+ for all that begin with 5."),
    filter("http_path", "A regular expression for the path."),
  ],
};

const SESSION: Session = {
  authenticated: true,
  login: "none",
  user: "",
  read_only: true,
  place: "sandbox shop",
  version: "0.7.0",
  features: { policies: true, nodes: true, history: true },
};

const YAML = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: redis-cart
  namespace: shop
spec:
  endpointSelector:
    matchLabels:
      app: redis-cart
  ingress:
    - fromEndpoints:
        - matchLabels:
            app: cartservice
      toPorts:
        - ports:
            - port: "6379"
              protocol: TCP
`;

export function mapState(): MapState {
  return {
    revision: 1,
    time: new Date().toISOString(),
    window: 300,
    rate_over: 10,
    cards: cards(),
    edges: edges(),
    not_shown: { cards: 0, edges: 0 },
    absent: [],
    lost: 0,
  };
}

const LINES: PolicyLine[] = [
  {
    kind: "CiliumNetworkPolicy",
    namespace: "shop",
    name: "redis-cart",
    directions: ["ingress"],
    closes: ["ingress"],
    audit: false,
    selects: ["shop/Deployment/redis-cart"],
    problem: "",
  },
  {
    kind: "NetworkPolicy",
    namespace: "shop",
    name: "frontend",
    directions: ["ingress", "egress"],
    closes: ["ingress", "egress"],
    audit: false,
    selects: ["shop/Deployment/frontend"],
    problem: "",
  },
  {
    kind: "CiliumClusterwideNetworkPolicy",
    namespace: "",
    name: "no-smtp",
    directions: ["egress"],
    closes: [],
    audit: true,
    selects: ["shop/Deployment/emailservice"],
    problem: "",
  },
];

function preview(): Preview {
  const party = (name: string) => ({
    text: `shop/${name}`,
    namespace: "shop",
    workload: `deployment/${name}`,
    address: "",
    labels: [`k8s:app=${name}`],
    card: `shop/Deployment/${name}`,
  });
  const policy = { kind: "CiliumNetworkPolicy", namespace: "shop", name: "redis-cart", rule: "" };
  return {
    breaks: [
      {
        source: party("adservice"),
        destination: party("redis-cart"),
        service: "6379/TCP",
        request: "",
        passed: 12,
        refused: 0,
        last: new Date().toISOString(),
        before: { verdict: "passes", ingress: { verdict: "passes", by_default: true, policies: [] } },
        after: { verdict: "refused", ingress: { verdict: "refused", by_default: true, policies: [policy] } },
      },
    ],
    opens: [],
    depends: [],
    unchanged: 17,
    stale: 1,
    lost: 0,
    absent: [],
  };
}

function validation(yaml: string): Validation {
  const line = yaml.split("\n").findIndex((each) => each.includes("endpointSelektor")) + 1;
  return {
    valid: line === 0,
    objects: [LINES[0] as PolicyLine],
    problems: line
      ? [
          {
            message: "endpointSelektor is not a field of a policy's spec",
            line,
            column: 3,
            path: "spec.endpointSelektor",
            found: "endpointSelektor",
            remedy: "endpointSelector",
          },
        ]
      : [],
    findings: [],
  };
}

function timeline(query: URLSearchParams): Timeline {
  const until = Date.parse(query.get("until") ?? "") || Date.now();
  const since = Date.parse(query.get("since") ?? "") || until - 3_600_000;
  const count = Number(query.get("buckets") ?? 120);
  const at = Array.from({ length: count }, (_, index) => index);
  return {
    since: new Date(since).toISOString(),
    until: new Date(until).toISOString(),
    seconds: (until - since) / 1000 / count,
    verdicts: {
      FORWARDED: at.map((i) => Math.round(500 + 300 * Math.sin(i / 9) + 60 * Math.cos(i * 2.3))),
      DROPPED: at.map((i) => (i > count * 0.6 && i < count * 0.7 ? 120 : i % 17 === 0 ? 12 : 0)),
    },
    recorded: { since: new Date(Date.now() - 6 * 3_600_000).toISOString(), until: new Date().toISOString() },
  };
}

function nodes(): Nodes {
  const names = ["node1", "node2", "node3"];
  return {
    nodes: names.map((name, at) => ({
      name,
      addresses: [`172.31.0.${at + 1}`, `fd00:a0::${at + 1}`],
      agent:
        at === 2
          ? null
          : {
              phase: "ready",
              waits_for: "",
              version: "0.7.0",
              kernel: "6.18.0",
              started: new Date(Date.now() - 5_000_000).toISOString(),
              endpoints: 14,
              identities: 31,
              policies: 3,
              policy_entries: 212,
            },
      flows:
        at === 2
          ? null
          : {
              attached: true,
              rate: 112.4,
              seen: 812_331,
              lost: at * 210,
              kept: 131_072,
              capacity: 131_072,
              connections: 1204,
            },
      problems: at === 2 ? ["node node3: its agent does not answer: connection refused"] : [],
      lacks: [],
    })),
    ways: names.flatMap((source) =>
      names
        .filter((destination) => destination !== source)
        .flatMap((destination) =>
          (["underlay", "pods"] as const).map((path) => ({
            source,
            destination,
            path,
            protocol: "icmp" as const,
            address: "172.31.0.2",
            state: destination === "node3" ? ("fails" as const) : ("works" as const),
            ...(destination === "node3" ? {} : { latency: 0.00031 * (1 + source.length + path.length) }),
            reason: destination === "node3" ? "no answer within 3 s" : "",
            measured: new Date().toISOString(),
          })),
        ),
    ),
  };
}

export function answer(path: string, query: URLSearchParams, body: { yaml?: string }): unknown {
  const at = Date.now();
  switch (path) {
    case "session":
      return SESSION;
    case "meta":
      return META;
    case "complete":
      return {
        values: WAYS.map((each) => `shop/${each.source}`).filter((each, i, all) => all.indexOf(each) === i),
      };
    case "map":
      return mapState();
    case "flows":
      return {
        flows: Array.from({ length: 400 }, (_, i) =>
          flow(WAYS[(i * 7) % WAYS.length] as (typeof WAYS)[0], at - (400 - i) * 800),
        ),
        more: true,
        lost: 0,
        absent: [],
      } satisfies FlowList;
    case "timeline":
      return timeline(query);
    case "workloads":
      return cards()
        .filter((card) => card.kind === "workload")
        .map(
          (card): Workload => ({
            id: card.id,
            namespace: card.namespace,
            kind: card.workload_kind,
            name: card.name,
            pods: card.pods.length,
            labels: card.labels,
            closed: LINES.filter((line) => line.selects.includes(card.id)).flatMap((line) => line.closes),
          }),
        );
    case "policies": {
      const card = query.get("card");
      return card ? LINES.filter((line) => line.selects.includes(card)) : LINES;
    }
    case "policy":
      return {
        kind: query.get("kind"),
        namespace: query.get("namespace"),
        name: query.get("name"),
        yaml: YAML,
        revision: "7",
      };
    case "policies/validate":
      return validation(body.yaml ?? "");
    case "policies/preview":
      return preview();
    case "policies/suggest":
      return {
        yaml: YAML,
        policies: [LINES[0] as PolicyLine],
        idle: ["deployment/emailservice"],
        unsaid: [],
        lost: 0,
        absent: [],
      } satisfies Suggestion;
    case "nodes":
      return nodes();
    default:
      return null;
  }
}

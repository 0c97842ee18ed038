/** What the server says and is told: docs/ui-api.md. */

export type Session = {
  authenticated: boolean;
  login: "token" | "proxy" | "none";
  user: string;
  read_only: boolean;
  place: string;
  version: string;
  features: { policies: boolean; nodes: boolean; history: boolean };
};

export type Meta = { namespaces: string[]; nodes: string[]; filters: Filter[] };
export type Filter = { name: string; sided: boolean; help: string; values?: string[] };

// ---- service map -----------------------------------------------------------------------------------------

export type Absent = { node: string; why: string };
export type Policy = { kind: string; namespace: string; name: string; rule: string };
export type Count = { count: number; rate: number; last: string };

export type Card = {
  id: string;
  kind: "workload" | "world" | "node" | "service" | "other";
  namespace: string;
  name: string;
  workload_kind: string;
  labels: string[];
  pods: string[];
  ports: CardPort[];
};

export type CardPort = { port: number; protocol: string; calls: Call[]; calls_not_shown: number };

export type Call = {
  kind: "http" | "dns" | "kafka" | "tls";
  what: string;
  count: number;
  rate: number;
  dropped: number;
  failed: number;
  latency?: number;
};

export type Edge = {
  id: string;
  source: string;
  destination: string;
  port: number;
  protocol: string;
  service: string;
  kinds: string[];
  verdicts: Record<string, Count>;
  reasons: Record<string, number>;
  denied_by: Policy[];
  bytes: number;
  reply_bytes: number;
};

type Shown = {
  revision: number;
  time: string;
  cards: Card[];
  edges: Edge[];
  not_shown: { cards: number; edges: number };
  absent: Absent[];
  lost: number;
};
export type MapState = Shown & { window: number; rate_over: number };
export type MapDelta = Shown & { gone_cards: string[]; gone_edges: string[] };

// ---- flows -----------------------------------------------------------------------------------------------

export type Row = { id: string; flow: Flow };
export type FlowList = { flows: Row[]; more: boolean; lost: number; absent: Absent[] };
export type FlowBatch = {
  flows: Row[];
  not_shown: number;
  rate: number;
  verdicts: Record<string, number>;
  busiest?: Busy[];
  lost: number;
  absent: Absent[];
};
export type Busy = {
  source: string;
  destination: string;
  source_text: string;
  destination_text: string;
  port: number;
  protocol: string;
  verdict: string;
  rate: number;
};
export type Timeline = {
  since: string;
  until: string;
  seconds: number;
  verdicts: Record<string, number[]>;
  recorded: { since: string; until: string } | null;
};

/** As `axo observe -o json` prints it: defaults are left out. */
export type Flow = {
  time: string;
  verdict: string;
  drop_reason_desc?: string;
  IP?: {
    source?: string;
    destination?: string;
    ipVersion?: string;
    source_xlated?: string;
    source_port_xlated?: number;
    protocol?: number;
    frontend?: string;
    frontend_port?: number;
  };
  l4?: {
    TCP?: Ports & { flags?: Record<string, boolean> };
    UDP?: Ports;
    SCTP?: Ports;
    ICMPv4?: { type: number; code: number };
    ICMPv6?: { type: number; code: number };
  };
  source?: Endpoint;
  destination?: Endpoint;
  Type?: string;
  node_name?: string;
  l7?: Layer7;
  source_service?: Service;
  destination_service?: Service;
  traffic_direction?: string;
  is_reply?: boolean | null;
  proxy_port?: number;
  egress_allowed_by?: PolicyName[];
  ingress_allowed_by?: PolicyName[];
  egress_denied_by?: PolicyName[];
  ingress_denied_by?: PolicyName[];
  Summary?: string;
  event?: string;
  duration_ns?: number;
  packets?: number;
  bytes?: number;
  reply_packets?: number;
  reply_bytes?: number;
};
export type Ports = { source_port?: number; destination_port?: number };
export type Endpoint = {
  ID?: number;
  identity?: number;
  namespace?: string;
  labels?: string[];
  pod_name?: string;
  workloads?: { name: string; kind: string }[];
  node_name?: string;
};
export type Service = { name: string; namespace?: string; port?: string };
export type PolicyName = { name: string; namespace?: string; kind?: string; rule?: string };
export type Layer7 = {
  type: string;
  latency_ns?: number;
  http?: {
    code?: number;
    method?: string;
    url?: string;
    protocol?: string;
    headers?: { key: string; value: string }[];
    grpc_status?: number | null;
  };
  dns?: {
    query?: string;
    ips?: string[];
    ttl?: number;
    cnames?: string[];
    rcode?: number;
    qtypes?: string[];
  };
  kafka?: { error_code?: number; api_version?: number; api_key?: string; topic?: string; client_id?: string };
  server_name?: string;
  reason?: string;
};

// ---- policies --------------------------------------------------------------------------------------------

export type Direction = "ingress" | "egress";
export type Ref = { kind: string; namespace: string; name: string };
export type PolicyLine = Ref & {
  directions: Direction[];
  closes: Direction[];
  audit: boolean;
  selects: string[];
  problem: string;
};
export type PolicyText = Ref & { yaml: string; revision: string };
export type Workload = {
  id: string;
  namespace: string;
  kind: string;
  name: string;
  pods: number;
  labels: string[];
  closed: Direction[];
};

export type Validation = { valid: boolean; objects: Ref[]; problems: TextProblem[]; findings: Finding[] };
export type TextProblem = {
  message: string;
  line: number;
  column: number;
  path: string;
  found: string;
  remedy: string;
};
export type Finding = {
  code: string;
  severity: "error" | "warning" | "note";
  title: string;
  what: string;
  why: string;
  remedy: string;
  object: Ref;
  path: string;
  line: number;
  column: number;
};

export type Preview = {
  breaks: Change[];
  opens: Change[];
  depends: Change[];
  unchanged: number;
  stale: number;
  lost: number;
  absent: Absent[];
};
export type Change = {
  source: Party;
  destination: Party;
  service: string;
  request: string;
  passed: number;
  refused: number;
  last: string;
  before: Judgement;
  after: Judgement;
};
export type Party = {
  text: string;
  namespace: string;
  workload: string;
  address: string;
  labels: string[];
  card: string;
};
export type Half = { verdict: "passes" | "refused" | "depends"; by_default: boolean; policies: Policy[] };
export type Judgement = { verdict: Half["verdict"]; egress?: Half; ingress?: Half };
export type Suggestion = {
  yaml: string;
  policies: Ref[];
  idle: string[];
  unsaid: string[];
  lost: number;
  absent: Absent[];
};

// ---- nodes -----------------------------------------------------------------------------------------------

export type Nodes = { nodes: Node[]; ways: Way[] };
export type Node = {
  name: string;
  addresses: string[];
  agent: null | {
    phase: string;
    waits_for: string;
    version: string;
    kernel: string;
    started: string;
    endpoints: number;
    identities: number;
    policies: number;
    policy_entries: number;
  };
  flows: null | {
    attached: boolean;
    rate: number;
    seen: number;
    lost: number;
    kept: number;
    capacity: number;
    connections: number;
  };
  problems: string[];
  lacks: string[];
};
export type Way = {
  source: string;
  destination: string;
  path: "underlay" | "pods";
  protocol: "icmp" | "tcp";
  address: string;
  state: "works" | "fails" | "unknown";
  latency?: number;
  reason: string;
  measured?: string;
};

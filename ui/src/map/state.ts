/** The map as the server tells it: a whole state first, then what changed. Values in, values out. */

import type { Absent, Card, Count, Edge, MapDelta, MapState } from "../api/types";
import { type Tone, tone } from "../parts/parts";

export type Shown = {
  time: string;
  over: number;
  cards: ReadonlyMap<string, Card>;
  edges: ReadonlyMap<string, Edge>;
  notShown: { cards: number; edges: number };
  absent: Absent[];
  lost: number;
};

export function begin(state: MapState): Shown {
  return {
    time: state.time,
    over: state.rate_over,
    cards: new Map(state.cards.map((card) => [card.id, card])),
    edges: new Map(state.edges.map((edge) => [edge.id, edge])),
    notShown: state.not_shown,
    absent: state.absent,
    lost: state.lost,
  };
}

/** What did not change stays the same object, so that it need not be drawn anew. */
export function proceed(shown: Shown, delta: MapDelta): Shown {
  return {
    ...shown,
    time: delta.time,
    cards: merged(shown.cards, delta.cards, delta.gone_cards),
    edges: merged(shown.edges, delta.edges, delta.gone_edges),
    notShown: delta.not_shown,
    absent: delta.absent,
    lost: delta.lost,
  };
}

function merged<T extends { id: string }>(
  old: ReadonlyMap<string, T>,
  news: T[],
  gone: string[],
): ReadonlyMap<string, T> {
  if (news.length === 0 && gone.length === 0) return old;
  const made = new Map(old);
  for (const id of gone) made.delete(id);
  for (const each of news) made.set(each.id, each);
  return made;
}

/** The verdicts that are shown; none: all. */
export type Wanted = ReadonlySet<string>;

export function counts(edge: Edge, wanted: Wanted): [string, Count][] {
  return Object.entries(edge.verdicts).filter(([verdict]) => wanted.size === 0 || wanted.has(verdict));
}

export type Total = { rate: number; count: number; last: string };

const known = new WeakMap<Edge, { wanted: Wanted; found: ReadonlyMap<Tone, Total> }>();

/** What an edge says, by what that means to whoever looks: passed, refused, tried, through a proxy. */
export function totals(edge: Edge, wanted: Wanted): ReadonlyMap<Tone, Total> {
  const last = known.get(edge);
  if (last?.wanted === wanted) return last.found;
  const found = new Map<Tone, Total>();
  for (const [verdict, { count, rate, last: when }] of counts(edge, wanted)) {
    const kind = tone(verdict);
    const old = found.get(kind) ?? { rate: 0, count: 0, last: "" };
    found.set(kind, {
      rate: old.rate + rate,
      count: old.count + count,
      last: when > old.last ? when : old.last,
    });
  }
  known.set(edge, { wanted, found });
  return found;
}

/** What is not to be drawn: cards by their ids, and, unless something of theirs was refused, nodes and their probes. */
export type Hidden = { ids: ReadonlySet<string>; nodes: boolean };

/**
 * Cards and edges to be drawn: edges that have a wanted verdict, with their ends; where every verdict is wanted also
 * cards without edges. What touches a hidden card is not drawn, nor is a neighbour that has no other edge.
 */
export function visible(shown: Shown, wanted: Wanted, hidden: Hidden): { cards: Card[]; edges: Edge[] } {
  const isNode = (id: string) => shown.cards.get(id)?.kind === "node";
  const touched = new Set<string>();
  const edges = [...shown.edges.values()].filter((edge) => {
    const ends = [edge.source, edge.destination];
    if (!ends.every((id) => shown.cards.has(id))) return false;
    if (ends.some((id) => hidden.ids.has(id))) {
      for (const id of ends) touched.add(id);
      return false;
    }
    if (hidden.nodes && ends.some(isNode) && !refused(edge)) return false;
    return counts(edge, wanted).length > 0;
  });
  const ends = new Set(edges.flatMap((edge) => [edge.source, edge.destination]));
  const alone = (card: Card) =>
    wanted.size === 0 &&
    !touched.has(card.id) &&
    !hidden.ids.has(card.id) &&
    !(hidden.nodes && card.kind === "node");
  return { cards: [...shown.cards.values()].filter((card) => ends.has(card.id) || alone(card)), edges };
}

function refused(edge: Edge): boolean {
  return Object.keys(edge.verdicts).some((verdict) => ["bad", "tried"].includes(tone(verdict)));
}

export function neighbours(edges: Edge[], card: string): Set<string> {
  const found = new Set([card]);
  for (const edge of edges) {
    if (edge.source === card) found.add(edge.destination);
    if (edge.destination === card) found.add(edge.source);
  }
  return found;
}

export function nameOf(card: Card): string {
  return card.namespace ? `${card.namespace}/${card.name}` : card.name;
}

/** The filters that mean flows of this card; `side` is "", "from_" or "to_". */
export function filtersFor(card: Card, side: "" | "from_" | "to_"): [string, string][] {
  if (card.kind === "service") return [["service", nameOf(card)]];
  if (!card.namespace) return [[`${side}identity`, card.name]];
  if (card.workload_kind === "Pod") return [[`${side}pod`, nameOf(card)]];
  return [
    [`${side}workload`, card.workload_kind ? `${card.workload_kind}/${card.name}` : card.name],
    [`${side}namespace`, card.namespace],
  ];
}

export function filtersForEdge(edge: Edge, cards: ReadonlyMap<string, Card>): [string, string][] {
  const [source, destination] = [cards.get(edge.source), cards.get(edge.destination)];
  const found = [
    ...(source ? filtersFor(source, "from_") : []),
    ...(destination ? filtersFor(destination, "to_") : []),
  ];
  if (["TCP", "UDP", "SCTP"].includes(edge.protocol)) found.push(["to_port", String(edge.port)]);
  found.push(["protocol", edge.protocol.toLowerCase()]);
  return found;
}

export function portKey(port: { port: number; protocol: string }): string {
  return `${port.port}/${port.protocol}`;
}

/** Where cards stand: callers left of what they call (dagre), namespaces as boxes around their workloads. */

import dagre from "@dagrejs/dagre";
import type { Card, CardPort, Edge } from "../api/types";

export const WIDTH = 216;
const HEAD = 46;
const PORT = 24;
const CALL = 19;
const FOOT = 6;
const CALLS = 3;
const PAD = 20;
const TITLE = 30;

export type Spot = { x: number; y: number; width: number; height: number };
export type Layout = { cards: Map<string, Spot>; groups: Map<string, Spot> };

export function shownCalls(port: CardPort): { calls: CardPort["calls"]; more: number } {
  const calls = port.calls.slice(0, CALLS);
  return { calls, more: port.calls.length - calls.length + port.calls_not_shown };
}

export function heightOf(card: Card): number {
  let height = HEAD;
  for (const port of card.ports) {
    const { calls, more } = shownCalls(port);
    height += PORT + CALL * (calls.length + (more ? 1 : 0));
  }
  return height + (card.ports.length ? FOOT : 0);
}

/** What a layout depends on: as long as it stays the same, nothing moves. */
export function shapeOf(cards: Card[], edges: Edge[]): string {
  const places = cards.map((card) => `${card.id} ${card.namespace} ${heightOf(card)}`).sort();
  const ways = new Set(edges.map((edge) => `${edge.source} ${edge.destination}`));
  return [...places, ...[...ways].sort()].join("\n");
}

export function lay(cards: Card[], edges: Edge[]): Layout {
  const graph = new dagre.graphlib.Graph({ compound: true });
  graph.setGraph({ rankdir: "LR", nodesep: 26, ranksep: 104, edgesep: 14, ranker: "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  const namespaces = new Set(cards.map((card) => card.namespace).filter((namespace) => namespace !== ""));
  const grouped = namespaces.size > 1;
  // In one order, so that the same cluster looks the same each time.
  const ordered = [...cards].sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const namespace of grouped ? [...namespaces].sort() : []) graph.setNode(groupId(namespace), {});
  for (const card of ordered) {
    graph.setNode(card.id, { width: WIDTH, height: heightOf(card) });
    if (grouped && card.namespace) graph.setParent(card.id, groupId(card.namespace));
  }
  const ways = new Set(edges.map((edge) => `${edge.source}\n${edge.destination}`));
  for (const way of [...ways].sort()) {
    const [source = "", destination = ""] = way.split("\n");
    if (source !== destination) graph.setEdge(source, destination);
  }
  dagre.layout(graph);
  const found: Layout = { cards: new Map(), groups: new Map() };
  for (const card of ordered) {
    const { x, y, width, height } = graph.node(card.id) as Spot;
    found.cards.set(card.id, { x: x - width / 2, y: y - height / 2, width, height });
  }
  for (const namespace of grouped ? namespaces : []) {
    const members = ordered.filter((card) => card.namespace === namespace);
    found.groups.set(namespace, around(members.flatMap((card) => found.cards.get(card.id) ?? [])));
  }
  return found;
}

function groupId(namespace: string): string {
  return `\0${namespace}`;
}

function around(spots: Spot[]): Spot {
  const left = Math.min(...spots.map((spot) => spot.x)) - PAD;
  const top = Math.min(...spots.map((spot) => spot.y)) - TITLE;
  const right = Math.max(...spots.map((spot) => spot.x + spot.width)) + PAD;
  const bottom = Math.max(...spots.map((spot) => spot.y + spot.height)) + PAD;
  return { x: left, y: top, width: right - left, height: bottom - top };
}

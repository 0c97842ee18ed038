/** Where cards stand: callers left of what they call (dagre), namespaces as boxes around their workloads. */

import dagre from "@dagrejs/dagre";
import type { Card, CardPort, Edge } from "../api/types";
import type { Point } from "./route";

export const WIDTH = 216;
const HEAD = 46;
const PORT = 24;
const CALL = 19;
const FOOT = 6;
const CALLS = 3;
const PAD = 20;
const TITLE = 30;
const MARGIN = 6;

export type Spot = { x: number; y: number; width: number; height: number };

/** A card where it is drawn. */
export type Place = { id: string; card: Card };
/** An edge with the ids of the places that it connects. */
export type Way = { edge: Edge; source: string; target: string };
export type Drawing = { places: Place[]; ways: Way[] };

export type Layout = {
  places: Map<string, Spot>;
  groups: Map<string, Spot>;
  /** By `wayKey`: where a way passes the columns between its ends. */
  routes: Map<string, Point[]>;
};

const asCaller = new WeakMap<Card, Card>();

/**
 * What is to be drawn. Who stands outside of all namespaces (the world, nodes) calls some and is called by others: it
 * is drawn once for each, without ports where it calls, so that no edge runs back over the whole map.
 */
export function drawing(cards: Card[], edges: Edge[]): Drawing {
  const calls = new Set(edges.map((edge) => edge.source));
  const called = new Set(edges.map((edge) => edge.destination));
  const twice = (card: Card) => card.namespace === "" && calls.has(card.id) && called.has(card.id);
  const split = new Set(cards.filter(twice).map((card) => card.id));
  const places = cards.flatMap((card): Place[] =>
    split.has(card.id)
      ? [
          { id: callerId(card.id), card: caller(card) },
          { id: card.id, card },
        ]
      : [{ id: card.id, card }],
  );
  const ways = edges.map((edge) => ({
    edge,
    source: split.has(edge.source) ? callerId(edge.source) : edge.source,
    target: edge.destination,
  }));
  return { places, ways };
}

function caller(card: Card): Card {
  const known = asCaller.get(card) ?? { ...card, ports: [] };
  asCaller.set(card, known);
  return known;
}

function callerId(id: string): string {
  return `${id} calls`;
}

export function wayKey({ source, target }: Way): string {
  return `${source}\n${target}`;
}

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
export function shapeOf({ places, ways }: Drawing): string {
  const spots = places.map(({ id, card }) => `${id} ${card.namespace} ${heightOf(card)}`).sort();
  return [...spots, ...[...new Set(ways.map(wayKey))].sort()].join("\n");
}

export function lay({ places, ways }: Drawing): Layout {
  const graph = new dagre.graphlib.Graph({ compound: true });
  graph.setGraph({ rankdir: "LR", nodesep: 26, ranksep: 84, edgesep: 16, ranker: "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  const namespaces = new Set(
    places.map(({ card }) => card.namespace).filter((namespace) => namespace !== ""),
  );
  const grouped = namespaces.size > 1;
  // In one order, so that the same cluster looks the same each time.
  const ordered = [...places].sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const namespace of grouped ? [...namespaces].sort() : []) graph.setNode(groupId(namespace), {});
  for (const { id, card } of ordered) {
    graph.setNode(id, { width: WIDTH, height: heightOf(card) });
    if (grouped && card.namespace) graph.setParent(id, groupId(card.namespace));
  }
  const keys = [...new Set(ways.map(wayKey))].sort().map((key) => key.split("\n") as [string, string]);
  for (const [source, target] of keys) if (source !== target) graph.setEdge(source, target);
  dagre.layout(graph);
  const found: Layout = { places: new Map(), groups: new Map(), routes: new Map() };
  for (const { id } of ordered) {
    const { x, y, width, height } = graph.node(id) as Spot;
    found.places.set(id, { x: x - width / 2, y: y - height / 2, width, height });
  }
  const columns = [...new Set([...found.places.values()].map(({ x }) => x + WIDTH / 2))];
  for (const [source, target] of keys) {
    const points =
      source === target ? [] : ((graph.edge(source, target) as { points: Point[] }).points ?? []);
    const route = between(points, found.places.get(source), found.places.get(target), columns);
    found.routes.set(`${source}\n${target}`, route);
  }
  for (const namespace of grouped ? namespaces : []) {
    const members = ordered.filter(({ card }) => card.namespace === namespace);
    found.groups.set(namespace, around(members.flatMap(({ id }) => found.places.get(id) ?? [])));
  }
  return found;
}

/** Where a route passes columns of cards between its ends: level, from one side of the column to the other. */
function between(
  points: Point[],
  source: Spot | undefined,
  target: Spot | undefined,
  columns: number[],
): Point[] {
  if (!source || !target || target.x <= source.x + source.width) return [];
  const [first, last] = [source.x + source.width, target.x];
  return points.flatMap(({ x, y }) =>
    x > first && x < last && columns.some((column) => Math.abs(column - x) < WIDTH / 2)
      ? [
          { x: x - WIDTH / 2 - MARGIN, y },
          { x: x + WIDTH / 2 + MARGIN, y },
        ]
      : [],
  );
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

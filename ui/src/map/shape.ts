/** What a map consists of when it is drawn, and how large its parts are. */

import type { Card, CardPort, Edge } from "../api/types";
import type { Point } from "./route";

export const WIDTH = 216;
const HEAD = 46;
const PORT = 24;
const CALL = 19;
const FOOT = 6;
const CALLS = 3;

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

/** The smallest box around others. */
export function around(spots: Spot[]): Spot {
  const left = Math.min(...spots.map((spot) => spot.x));
  const top = Math.min(...spots.map((spot) => spot.y));
  const right = Math.max(...spots.map((spot) => spot.x + spot.width));
  const bottom = Math.max(...spots.map((spot) => spot.y + spot.height));
  return { x: left, y: top, width: right - left, height: bottom - top };
}

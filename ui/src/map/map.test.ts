import { describe, expect, test } from "vitest";
import type { Card, Edge, MapState } from "../api/types";
import { lay } from "./layout";
import { quick } from "./quick";
import { line, loop } from "./route";
import { drawing, heightOf, type Spot, shapeOf } from "./shape";
import {
  begin,
  filtersFor,
  filtersForEdge,
  type Hidden,
  neighbours,
  proceed,
  totals,
  visible,
} from "./state";

const card = (name: string, more: Partial<Card> = {}): Card => ({
  id: `shop/Deployment/${name}`,
  kind: "workload",
  namespace: "shop",
  name,
  workload_kind: "Deployment",
  labels: [],
  pods: [],
  ports: [],
  ...more,
});
const world = card("world", { id: "reserved:world", kind: "world", namespace: "", workload_kind: "" });
const edge = (source: Card, destination: Card, verdicts: Record<string, number>): Edge => ({
  id: `${source.name}>${destination.name}`,
  source: source.id,
  destination: destination.id,
  port: 80,
  protocol: "TCP",
  service: "",
  kinds: [],
  verdicts: Object.fromEntries(
    Object.entries(verdicts).map(([verdict, rate]) => [
      verdict,
      { count: 10, rate, last: "2026-01-31T12:00:00Z" },
    ]),
  ),
  reasons: {},
  denied_by: [],
  bytes: 0,
  reply_bytes: 0,
});
const state = (cards: Card[], edges: Edge[]): MapState => ({
  revision: 1,
  time: "",
  window: 300,
  rate_over: 10,
  cards,
  edges,
  not_shown: { cards: 0, edges: 0 },
  absent: [],
  lost: 0,
});

const [web, db, cache] = [card("web"), card("db"), card("cache")];
const all = new Set<string>();
const none: Hidden = { ids: new Set(), nodes: false };
const without = (id: string): Hidden => ({ ids: new Set([id]), nodes: false });

describe("the state of a map", () => {
  test("takes up what changed, and leaves the rest the same objects", () => {
    const before = begin(state([web, db], [edge(web, db, { FORWARDED: 1 })]));
    const delta = {
      ...state([cache], [edge(db, cache, { DROPPED: 1 })]),
      gone_cards: [],
      gone_edges: ["web>db"],
    };
    const after = proceed(before, delta);
    expect([...after.edges.keys()]).toEqual(["db>cache"]);
    expect(after.cards.get(web.id)).toBe(web);
    expect(before.edges.has("web>db")).toBe(true);
  });

  test("adds verdicts up by what they mean", () => {
    const found = totals(edge(web, db, { DROPPED: 1, ERROR: 2, FORWARDED: 4 }), all);
    expect([found.get("bad")?.rate, found.get("good")?.rate, found.has("tried")]).toEqual([3, 4, false]);
    expect(totals(edge(web, db, { DROPPED: 1, FORWARDED: 4 }), new Set(["FORWARDED"])).has("bad")).toBe(
      false,
    );
  });

  test("draws the ends of edges with a wanted verdict, and all cards where all are wanted", () => {
    const shown = begin(state([web, db, cache], [edge(web, db, { DROPPED: 1 })]));
    expect(visible(shown, all, none).cards).toHaveLength(3);
    expect(visible(shown, new Set(["DROPPED"]), none).cards).toEqual([web, db]);
    expect(visible(shown, new Set(["AUDIT"]), none)).toEqual({ cards: [], edges: [] });
  });

  test("hides a card, its edges, and whom nothing else connects", () => {
    const shown = begin(
      state([web, db, cache], [edge(web, db, { FORWARDED: 1 }), edge(db, cache, { FORWARDED: 1 })]),
    );
    expect(visible(shown, all, without(cache.id)).cards).toEqual([web, db]);
    expect(visible(shown, all, without(db.id))).toEqual({ cards: [], edges: [] });
  });

  test("leaves nodes away with their probes, and shows what was refused to them", () => {
    const host = card("host", { id: "reserved:host", kind: "node", namespace: "" });
    const probe = edge(host, web, { FORWARDED: 1 });
    const shown = begin(state([host, web, db], [probe, edge(web, db, { FORWARDED: 1 })]));
    expect(visible(shown, all, { ids: new Set(), nodes: true }).cards).toEqual([web, db]);
    expect(visible(shown, all, none).edges).toHaveLength(2);
    const attacked = begin(state([host, web], [edge(web, host, { DROPPED: 1 })]));
    expect(visible(attacked, all, { ids: new Set(), nodes: true }).edges).toHaveLength(1);
  });

  test("knows who is next to whom", () => {
    const edges = [edge(web, db, {}), edge(db, cache, {})];
    expect(neighbours(edges, web.id)).toEqual(new Set([web.id, db.id]));
  });

  test("says cards and edges in the filters of axo observe", () => {
    expect(filtersFor(web, "from_")).toEqual([
      ["from_workload", "Deployment/web"],
      ["from_namespace", "shop"],
    ]);
    expect(filtersFor(world, "to_")).toEqual([["to_identity", "world"]]);
    const filters = filtersForEdge(
      edge(world, web, {}),
      new Map([world, web].map((each) => [each.id, each])),
    );
    expect(filters).toContainEqual(["to_port", "80"]);
    expect(filters).toContainEqual(["from_identity", "world"]);
  });
});

describe("a layout", () => {
  test("puts callers left of what they call, and none over another", () => {
    const { places } = lay(
      drawing([db, cache, web], [edge(web, db, {}), edge(web, cache, {}), edge(db, cache, {})]),
    );
    const spot = (of: Card) => places.get(of.id) ?? { x: 0, y: 0, width: 0, height: 0 };
    expect(spot(web).x + spot(web).width).toBeLessThan(spot(db).x);
    expect(spot(db).x + spot(db).width).toBeLessThan(spot(cache).x);
  });

  test("is the same whatever the order in which things came", () => {
    const edges = [edge(web, db, {}), edge(web, cache, {})];
    const [one, other] = [drawing([web, db, cache], edges), drawing([cache, web, db], [...edges].reverse())];
    expect(shapeOf(one)).toBe(shapeOf(other));
    expect(lay(one).places.get(db.id)).toEqual(lay(other).places.get(db.id));
  });

  test("draws the world twice where it calls and is called", () => {
    const { places, ways } = drawing([world, web], [edge(world, web, {}), edge(web, world, {})]);
    expect(places.map((place) => place.card.id)).toEqual([world.id, world.id, web.id]);
    expect(ways[0]?.source).not.toBe(ways[1]?.target);
    expect(drawing([world, web], [edge(world, web, {})]).places).toHaveLength(2);
  });

  test("has boxes for namespaces where there are several", () => {
    const other = card("dns", { id: "kube-system/Deployment/dns", namespace: "kube-system" });
    const { groups, places } = lay(drawing([web, db, other], [edge(web, other, {}), edge(web, db, {})]));
    const [box, inside] = [groups.get("shop"), places.get(db.id)];
    expect(groups.size).toBe(2);
    expect(box && inside && inside.x > box.x && inside.x + inside.width < box.x + box.width).toBe(true);
  });

  test("has room for ports and calls", () => {
    const calls = Array.from({ length: 5 }, (_, at) => ({
      kind: "http" as const,
      what: `GET /${at}`,
      count: 1,
      rate: 1,
      dropped: 0,
      failed: 0,
    }));
    const busy = card("busy", { ports: [{ port: 80, protocol: "TCP", calls, calls_not_shown: 0 }] });
    const idle = card("idle", { ports: [{ port: 80, protocol: "TCP", calls: [], calls_not_shown: 0 }] });
    expect(heightOf(busy)).toBeGreaterThan(heightOf(idle));
  });
});

describe("a quick layout", () => {
  const sizes = { width: 200, gap: 20, column: 80, pad: 20, title: 30 };
  const overlap = (a: Spot, b: Spot) =>
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

  test("of hundreds of cards puts none over another, circles or not", () => {
    const cards = Array.from({ length: 300 }, (_, at) =>
      card(`c${at}`, { id: `c${at}`, namespace: `n${at % 7}` }),
    );
    const calls = Array.from({ length: 1500 }, (_, at) => {
      const [from, to] = [cards[(at * 7919) % 300] ?? web, cards[(at * 104729 + 13) % 300] ?? db];
      return { ...edge(from, to, {}), id: `e${at}` };
    });
    const spots = [...quick(drawing(cards, calls), sizes).values()];
    expect(spots).toHaveLength(300);
    expect(spots.some((one, at) => spots.slice(at + 1).some((other) => overlap(one, other)))).toBe(false);
  });

  test("keeps callers left", () => {
    const spots = quick(
      drawing([db, cache, web], [edge(web, db, {}), edge(db, cache, {}), edge(cache, web, {})]),
      sizes,
    );
    const x = [db, cache, web].map((each) => spots.get(each.id)?.x ?? 0);
    expect(new Set(x).size).toBe(3);
  });
});

describe("a line", () => {
  test("begins and ends where it should, by way of what lies between", () => {
    const { path } = line({ x: 0, y: 0 }, { x: 300, y: 50 }, [{ x: 150, y: 200 }]);
    expect(path.startsWith("M0 0C")).toBe(true);
    expect(path).toContain(" 150 200C");
    expect(path.endsWith(" 300 50")).toBe(true);
  });

  test("of who calls itself goes over its head", () => {
    expect(loop({ x: 200, y: 20 }, { x: 0, y: 60 }, 0).middle).toEqual({ x: 100, y: -18 });
  });
});

/** Where cards stand: callers left of what they call (dagre), namespaces as boxes around their workloads. */

import dagre from "@dagrejs/dagre";
import { quick } from "./quick";
import type { Point } from "./route";
import { around, type Drawing, heightOf, type Layout, type Place, type Spot, WIDTH, wayKey } from "./shape";

const PAD = 20;
const TITLE = 30;
const MARGIN = 6;

/** With more ways than this a careful layout takes seconds. */
const CAREFUL = 180;

export function lay(drawn: Drawing): Layout {
  const { places, ways } = drawn;
  // In one order, so that the same cluster looks the same each time.
  const ordered = [...places].sort((a, b) => (a.id < b.id ? -1 : 1));
  const keys = [...new Set(ways.map(wayKey))].sort();
  const namespaces = new Set(
    places.map(({ card }) => card.namespace).filter((namespace) => namespace !== ""),
  );
  const grouped = namespaces.size > 1;
  const found: Layout = { places: new Map(), groups: new Map(), routes: new Map() };
  if (keys.length > CAREFUL) {
    const sizes = { width: WIDTH, gap: 26, column: 84, pad: PAD, title: TITLE };
    found.places = quick({ places: ordered, ways }, sizes);
  } else carefully(ordered, keys, grouped, found);
  for (const namespace of grouped ? namespaces : []) {
    const members = ordered.filter(({ card }) => card.namespace === namespace);
    found.groups.set(namespace, boxed(around(members.flatMap(({ id }) => found.places.get(id) ?? []))));
  }
  return found;
}

/** By dagre, which also finds ways between the cards. */
function carefully(places: Place[], keys: string[], grouped: boolean, found: Layout): void {
  const graph = new dagre.graphlib.Graph({ compound: true });
  graph.setGraph({ rankdir: "LR", nodesep: 26, ranksep: 84, edgesep: 16, ranker: "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const { id, card } of places) {
    graph.setNode(id, { width: WIDTH, height: heightOf(card) });
    if (!grouped || !card.namespace) continue;
    graph.setNode(groupId(card.namespace), {});
    graph.setParent(id, groupId(card.namespace));
  }
  const ends = keys.map((key) => key.split("\n") as [string, string]);
  for (const [source, target] of ends) if (source !== target) graph.setEdge(source, target);
  dagre.layout(graph);
  for (const { id } of places) {
    const { x, y, width, height } = graph.node(id) as Spot;
    found.places.set(id, { x: x - width / 2, y: y - height / 2, width, height });
  }
  const columns = [...new Set([...found.places.values()].map(({ x }) => x + WIDTH / 2))];
  for (const [source, target] of ends) {
    if (source === target) continue;
    const { points } = graph.edge(source, target) as { points: Point[] };
    const route = between(points, found.places.get(source), found.places.get(target), columns);
    found.routes.set(`${source}\n${target}`, route);
  }
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

/** With room for a name above. */
function boxed({ x, y, width, height }: Spot): Spot {
  return { x: x - PAD, y: y - TITLE, width: width + 2 * PAD, height: height + TITLE + PAD };
}

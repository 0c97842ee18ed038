/**
 * A layout for maps that are too large for a careful one: callers left of what they call within each namespace,
 * namespaces beside and below each other. It takes time in proportion to what is drawn; lines may pass behind cards.
 */

import { type Drawing, heightOf, type Spot } from "./shape";

export type Sizes = { width: number; gap: number; column: number; pad: number; title: number };

export function quick({ places, ways }: Drawing, sizes: Sizes): Map<string, Spot> {
  const blocks = new Map<string, string[]>();
  const heights = new Map<string, number>();
  for (const { id, card } of places) {
    blocks.set(card.namespace, [...(blocks.get(card.namespace) ?? []), id]);
    heights.set(id, heightOf(card));
  }
  const calls = new Map<string, string[]>();
  const edges = new Set(ways.map(({ source, target }) => `${source}\n${target}`));
  for (const [source = "", target = ""] of [...edges].map((edge) => edge.split("\n")))
    if (source !== target) calls.set(source, [...(calls.get(source) ?? []), target]);
  const laid = [...blocks].map(([, ids]) => block(ids, calls, heights, sizes));
  return shelves(laid, sizes);
}

type Block = { spots: Map<string, Spot>; width: number; height: number };

/** Columns by rank, of about as many cards as there are columns; in each, cards stand near those that call them. */
function block(
  ids: string[],
  calls: Map<string, string[]>,
  heights: Map<string, number>,
  sizes: Sizes,
): Block {
  const rank = ranks(ids, calls);
  const most = Math.max(4, Math.ceil(Math.sqrt(ids.length) * 1.6));
  const columns: string[][] = [];
  const row = new Map<string, number>();
  const callers = new Map<string, string[]>();
  for (const id of ids)
    for (const to of calls.get(id) ?? []) callers.set(to, [...(callers.get(to) ?? []), id]);
  const mean = (id: string) => {
    const rows = (callers.get(id) ?? []).flatMap((caller) => row.get(caller) ?? []);
    return rows.length ? rows.reduce((sum, each) => sum + each, 0) / rows.length : 0;
  };
  for (let level = 0; level <= Math.max(0, ...rank.values()); level++) {
    const there = ids.filter((id) => rank.get(id) === level);
    const sorted = there.map((id) => ({ id, mean: mean(id) })).sort((a, b) => a.mean - b.mean);
    for (const [at, { id }] of sorted.entries()) row.set(id, at);
    for (let at = 0; at < sorted.length; at += most)
      columns.push(sorted.slice(at, at + most).map(({ id }) => id));
  }
  const spots = new Map<string, Spot>();
  let height = 0;
  columns.forEach((column, at) => {
    let y = 0;
    for (const id of column) {
      const tall = heights.get(id) ?? 0;
      spots.set(id, { x: at * (sizes.width + sizes.column), y, width: sizes.width, height: tall });
      y += tall + sizes.gap;
    }
    height = Math.max(height, y - sizes.gap);
  });
  return { spots, width: columns.length * (sizes.width + sizes.column) - sizes.column, height };
}

/** How many calls lead to each at most, where calls that close a circle do not count. */
function ranks(ids: string[], calls: Map<string, string[]>): Map<string, number> {
  const inside = new Set(ids);
  const state = new Map<string, "open" | "done">();
  const order: string[] = [];
  const forward = new Map<string, string[]>();
  for (const root of ids) {
    const path: { id: string; next: number }[] = state.has(root) ? [] : [{ id: root, next: 0 }];
    if (path.length) state.set(root, "open");
    for (let top = path.at(-1); top; top = path.at(-1)) {
      const to = (calls.get(top.id) ?? [])[top.next++];
      if (to === undefined) {
        state.set(top.id, "done");
        order.push(top.id);
        path.pop();
      } else if (inside.has(to) && state.get(to) !== "open") {
        forward.set(top.id, [...(forward.get(top.id) ?? []), to]);
        if (!state.has(to)) {
          state.set(to, "open");
          path.push({ id: to, next: 0 });
        }
      }
    }
  }
  const found = new Map<string, number>(ids.map((id) => [id, 0]));
  for (const id of order.reverse())
    for (const to of forward.get(id) ?? [])
      found.set(to, Math.max(found.get(to) ?? 0, (found.get(id) ?? 0) + 1));
  return found;
}

/** Blocks beside each other, the tallest first, in rows about as wide as all are high. */
function shelves(blocks: Block[], { pad, title }: Sizes): Map<string, Spot> {
  const area = blocks.reduce(
    (sum, { width, height }) => sum + (width + 3 * pad) * (height + title + 2 * pad),
    0,
  );
  const widest = Math.max(Math.sqrt(area) * 1.5, ...blocks.map((each) => each.width));
  const found = new Map<string, Spot>();
  let [x, y, tall] = [0, 0, 0];
  for (const { spots, width, height } of [...blocks].sort((a, b) => b.height - a.height)) {
    if (x > 0 && x + width > widest) [x, y, tall] = [0, y + tall + title + 2 * pad, 0];
    for (const [id, spot] of spots) found.set(id, { ...spot, x: spot.x + x, y: spot.y + y });
    x += width + 3 * pad;
    tall = Math.max(tall, height);
  }
  return found;
}

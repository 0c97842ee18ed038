/** The line of an edge: from its source's right side, between the cards, to a port at its destination's left side. */

export type Point = { x: number; y: number };

export type Line = { path: string; middle: Point };

/** `between` are the points at which it passes columns of other cards. */
export function line(source: Point, target: Point, between: readonly Point[]): Line {
  const points = [source, ...between, target];
  let path = `M${at(source)}`;
  let longest = 0;
  let middle = source;
  for (let i = 1; i < points.length; i++) {
    const [from, to] = [points[i - 1] ?? source, points[i] ?? target];
    const half = (from.x + to.x) / 2;
    const forward = to.x > from.x;
    // Backwards it leaves to the right all the same, and comes in from the left.
    const reach = forward ? half - from.x : Math.min(160, 40 + Math.abs(to.y - from.y) / 3);
    path += `C${at({ x: from.x + reach, y: from.y })} ${at({ x: to.x - reach, y: to.y })} ${at(to)}`;
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    if (length > longest) [longest, middle] = [length, { x: half, y: (from.y + to.y) / 2 }];
  }
  return { path, middle };
}

/** Of who calls itself: over its head. */
export function loop(source: Point, target: Point, top: number): Line {
  const y = top - 18;
  const [right, left] = [source.x, target.x];
  const path = `M${at(source)}C${right + 44} ${source.y} ${right + 44} ${y} ${right - 12} ${y}H${left + 12}C${left - 44} ${y} ${left - 44} ${target.y} ${at(target)}`;
  return { path, middle: { x: (left + right) / 2, y } };
}

function at({ x, y }: Point): string {
  return `${Math.round(x * 10) / 10} ${Math.round(y * 10) / 10}`;
}

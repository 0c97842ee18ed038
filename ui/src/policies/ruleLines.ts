/**
 * Which lines of a policy's text are the rule that decided: from `spec.ingress[0]` to lines of block YAML.
 *
 * It goes by indentation, which holds for text that the server writes; of other styles it finds nothing.
 */

export type Lines = { first: number; last: number };

/** Lines from 0, both included; null where the path leads nowhere. */
export function ruleLines(yaml: string, path: string): Lines | null {
  const lines = yaml.split("\n");
  const steps = path.match(/[^.[\]]+/g) ?? [];
  let found: Place | null = { first: 0, last: lines.length - 1, inside: 0, indent: 0 };
  for (const step of steps) {
    if (found) found = /^\d+$/.test(step) ? item(lines, found, Number(step)) : key(lines, found, step);
  }
  return steps.length && found ? { first: found.first, last: found.last } : null;
}

/** Lines, and where among them and how far to the right the keys begin that are in them. */
type Place = Lines & { inside: number; indent: number };

function key(lines: string[], within: Place, name: string): Place | null {
  for (let at = within.inside; at <= within.last; at++) {
    const line = lines[at] ?? "";
    // The first key of a list's item stands behind its dash.
    const text = at === within.first && within.inside === at ? line.replace("- ", "  ") : line;
    const depth = within.indent;
    if (indentOf(text) !== depth || !text.trimStart().startsWith(`${name}:`)) continue;
    // A list may stand as deep as its key.
    const inside = (each: string) =>
      indentOf(each) > depth || (indentOf(each) === depth && each.trimStart().startsWith("- "));
    const last = end(lines, at, within.last, inside);
    return { first: at, last, inside: at + 1, indent: indentOf(lines[at + 1] ?? "") };
  }
  return null;
}

function item(lines: string[], within: Place, index: number): Place | null {
  const depth = within.indent;
  let seen = -1;
  for (let at = within.inside; at <= within.last; at++) {
    const line = lines[at] ?? "";
    if (indentOf(line) !== depth || !line.trimStart().startsWith("- ")) continue;
    if (++seen < index) continue;
    const last = end(lines, at, within.last, (each) => indentOf(each) > depth);
    return { first: at, last, inside: at, indent: depth + 2 };
  }
  return null;
}

function end(lines: string[], first: number, last: number, inside: (line: string) => boolean): number {
  let at = first;
  while (at < last && ((lines[at + 1] ?? "").trim() === "" || inside(lines[at + 1] ?? ""))) at++;
  while (at > first && (lines[at] ?? "").trim() === "") at--;
  return at;
}

function indentOf(line: string): number {
  return line.length - line.trimStart().length;
}

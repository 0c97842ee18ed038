/**
 * The filters of `axo observe`, in its two spellings: options of a command line, and names in an address.
 *
 * Terms of one name are alternatives, different names must all hold, and each that is negated hides what it matches.
 */

import type { Filter } from "../api/types";

/** `field` as in addresses: `from_pod`. */
export type Term = { field: string; value: string; not: boolean };

const NOT = "not.";
const SHORT: Record<string, string> = {
  "-v": "verdict",
  "-n": "namespace",
  "-l": "label",
  "-t": "type",
};
/** Options of the command that take a value and are no filters. */
const OTHERS = ["--last", "--sandbox", "--output", "-o"];

export class Misunderstood extends Error {}

export type Field = { name: string; filter: Filter };

export function fields(filters: Filter[]): Field[] {
  return filters.flatMap((filter) =>
    (filter.sided ? ["", "from_", "to_"] : [""]).map((side) => ({ name: side + filter.name, filter })),
  );
}

export function option(field: string): string {
  return field.replaceAll("_", "-");
}

export function fromQuery(query: URLSearchParams, filters: Filter[]): Term[] {
  const names = new Set(fields(filters).map((field) => field.name));
  const terms: Term[] = [];
  for (const [name, value] of query) {
    const not = name.startsWith(NOT);
    const field = not ? name.slice(NOT.length) : name;
    if (names.has(field)) terms.push({ field, value, not });
  }
  return terms;
}

/** A query in which these terms stand in place of those that stood there. */
export function withTerms(query: URLSearchParams, filters: Filter[], terms: Term[]): URLSearchParams {
  const made = new URLSearchParams(query);
  for (const { name } of fields(filters)) {
    made.delete(name);
    made.delete(NOT + name);
  }
  for (const term of terms) made.append((term.not ? NOT : "") + term.field, term.value);
  return made;
}

/** The query of a request for flows: filters, nothing else of what stands in the page's address. */
export function asked(terms: Term[]): [string, string][] {
  return terms.map((term) => [(term.not ? NOT : "") + term.field, term.value]);
}

export function command(terms: Term[], since = "", until = ""): string {
  const words = ["axo observe"];
  for (const term of terms)
    words.push(`${term.not ? "--not " : ""}--${option(term.field)} ${quoted(term.value)}`);
  if (since) words.push(`--since ${quoted(since)}`);
  if (until) words.push(`--until ${quoted(until)}`);
  if (!since && !until) words.push("--follow");
  return words.join(" ");
}

function quoted(value: string): string {
  return /^[\w./:@%+,=-]+$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`;
}

export type Parsed = { terms: Term[]; since: string; until: string };

/** Reads options as a shell would split them: `--from-pod shop/web --not --port 53`, also a whole command. */
export function parseCommand(text: string, filters: Filter[]): Parsed {
  const names = new Set(fields(filters).map((field) => field.name));
  const found: Parsed = { terms: [], since: "", until: "" };
  const words = split(text);
  let not = false;
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (at < 2 && (word === "axo" || word === "observe")) continue;
    if (word === "--not" || word === "not") {
      not = true;
      continue;
    }
    if (["-f", "--follow", "--all"].includes(word)) continue;
    const [, key = "", inline] = /^([^=]+)(?:=([\s\S]*))?$/.exec(word) ?? [];
    const value = inline ?? words[++at];
    if (value === undefined) throw new Misunderstood(`${key}: a value is missing`);
    if (OTHERS.includes(key)) continue;
    const field = SHORT[key] ?? key.replace(/^--/, "").replaceAll("-", "_");
    if (key === "--since" || key === "--until") found[field as "since" | "until"] = value;
    else if (names.has(field)) found.terms.push({ field, value, not });
    else throw new Misunderstood(`${key} is no filter of axo observe`);
    not = false;
  }
  if (not) throw new Misunderstood("not: a filter has to follow");
  return found;
}

/** Words of a POSIX shell's line, without expansions. */
function split(text: string): string[] {
  const words: string[] = [];
  for (const match of text.matchAll(/(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|\\(.)|([^\s"'\\]+)|(\s+))/g)) {
    const [, double, single, escaped, plain, space] = match;
    if (space !== undefined) {
      words.push("");
      continue;
    }
    const part = double?.replace(/\\(["\\$`])/g, "$1") ?? single ?? escaped ?? plain ?? "";
    if (words.length === 0) words.push("");
    words[words.length - 1] += part;
  }
  return words.filter((word) => word !== "");
}

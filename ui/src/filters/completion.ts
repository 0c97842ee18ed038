/** What the filter bar offers for what stands in it. */

import { type Field, option } from "./language";

export type Pending = { not: boolean; field: Field | null; text: string };

/** Takes `not`, then a field's name with what ends it, off the front of what was typed. */
export function advance(pending: Pending, fields: Field[]): Pending {
  let { not, field, text } = pending;
  const negation = field ? null : /^\s*(?:--)?not\s+/.exec(text);
  if (negation) {
    not = !not;
    text = text.slice(negation[0].length);
  }
  if (!field) {
    const [whole = "", name = ""] = /^\s*(?:--)?([a-z][a-z_-]*)(?:[\s=:]+)/.exec(text) ?? [];
    const found = fields.find((each) => option(each.name) === name.replaceAll("_", "-"));
    if (found) {
      field = found;
      text = text.slice(whole.length);
    }
  }
  return { not, field, text };
}

/** Fields whose name begins with the text, or has a part that does; in this order. */
export function fieldsFor(text: string, fields: Field[]): Field[] {
  const wanted = text.trim().toLowerCase().replace(/^--/, "").replaceAll("_", "-");
  const ranked = fields.flatMap((field) => {
    const name = option(field.name);
    const rank = name.startsWith(wanted)
      ? 0
      : name.split("-").some((part) => part.startsWith(wanted))
        ? 1
        : 2;
    return rank < 2 ? [{ field, rank: rank + (field.name === field.filter.name ? 0 : 0.5) }] : [];
  });
  return ranked.sort((a, b) => a.rank - b.rank).map((each) => each.field);
}

export function valuesFor(text: string, values: string[]): string[] {
  const wanted = text.toLowerCase();
  const begin = values.filter((value) => value.toLowerCase().startsWith(wanted));
  const within = values.filter((value) => value.toLowerCase().indexOf(wanted) > 0);
  return [...begin, ...within];
}

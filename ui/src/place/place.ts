/** Where somebody is in the page, all of it in the address: `#/flows?namespace=shop&verdict=DROPPED`. */

import { useSyncExternalStore } from "react";

export const VIEWS = ["map", "flows", "policies", "nodes"] as const;
export type View = (typeof VIEWS)[number];
export type Place = { view: View; query: URLSearchParams };

/** What to change in a query: null takes a name away, a list stands for a name that is there several times. */
export type Changes = Record<string, string | string[] | null>;

export function parse(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.find((each) => each === path) ?? "map";
  return { view, query: new URLSearchParams(query) };
}

export function changed(query: URLSearchParams, changes: Changes): URLSearchParams {
  const made = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    made.delete(name);
    for (const each of value === null ? [] : [value].flat()) if (each !== "") made.append(name, each);
  }
  return made;
}

export function link(view: View, query: URLSearchParams): string {
  // Slashes and colons are legible, and allowed in a fragment (RFC 3986, section 3.5).
  const text = query.toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return `#/${view}${text ? `?${text}` : ""}`;
}

/** What belongs to one view alone, and stays behind when another is looked at. */
const LOCAL = ["card", "edge", "flow", "policy", "workload", "tab"];

export function across(query: URLSearchParams): URLSearchParams {
  return changed(query, Object.fromEntries(LOCAL.map((name) => [name, null])));
}

export function go(to: string, replace = false): void {
  if (to === location.hash) return;
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

let known: { hash: string; place: Place } | null = null;

function current(): Place {
  if (known?.hash !== location.hash) known = { hash: location.hash, place: parse(location.hash) };
  return known.place;
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  window.addEventListener("popstate", changed);
  return () => {
    window.removeEventListener("hashchange", changed);
    window.removeEventListener("popstate", changed);
  };
}

export function usePlace(): Place {
  return useSyncExternalStore(subscribe, current);
}

import { useEffect, useRef } from "react";

/** Within how many ms the second key of two has to follow. */
const PATIENCE = 900;

/** Keys, or two in a row (`g m`), that do something wherever nothing is being written. */
export function useShortcuts(shortcuts: Record<string, () => void>): void {
  const current = useRef(shortcuts);
  useEffect(() => {
    current.current = shortcuts;
  });
  useEffect(() => {
    let first = "";
    let since = 0;
    const press = (event: KeyboardEvent) => {
      // An open dialog has the keys for itself, Escape before all.
      if (document.querySelector("dialog[open]")) return;
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || written(event)) return;
      const pair = event.timeStamp - since < PATIENCE ? `${first} ${event.key}` : "";
      const found = current.current[pair] ?? current.current[event.key];
      [first, since] = found ? ["", 0] : [event.key, event.timeStamp];
      if (!found) return;
      event.preventDefault();
      found();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  }, []);
}

/** Elements that know by themselves what these two keys mean. */
const PRESSED = "button, a, summary, [role=button], [role=option]";

function written(event: KeyboardEvent): boolean {
  const element = event.composedPath()[0];
  if ([" ", "Enter"].includes(event.key) && element instanceof Element && element.closest(PRESSED))
    return true;
  return (
    element instanceof HTMLElement &&
    (element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName))
  );
}

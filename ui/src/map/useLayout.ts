import { useEffect, useRef, useState } from "react";
import type { Done, Order } from "./layout.worker";
import { type Drawing, type Layout, shapeOf } from "./shape";

const NOTHING: Layout = { places: new Map(), groups: new Map(), routes: new Map() };

/** Where everything stands; until a new layout is ready, where it stood. */
export function useLayout(drawn: Drawing): { layout: Layout; shape: string } {
  const shape = shapeOf(drawn);
  const [found, setFound] = useState({ layout: NOTHING, shape: "" });
  const worker = useRef<Worker | null>(null);
  const newest = useRef({ number: 0, shape: "" });

  useEffect(() => {
    const made = new Worker(new URL("./layout.worker.ts", import.meta.url), { type: "module" });
    made.addEventListener("message", ({ data: { number, layout } }: MessageEvent<Done>) => {
      if (number === newest.current.number) setFound({ layout, shape: newest.current.shape });
    });
    worker.current = made;
    newest.current = { number: 0, shape: "" };
    return () => made.terminate();
  }, []);

  useEffect(() => {
    if (shape === newest.current.shape) return;
    newest.current = { number: newest.current.number + 1, shape };
    worker.current?.postMessage({ number: newest.current.number, drawn } satisfies Order);
  }, [shape, drawn]);
  return found;
}

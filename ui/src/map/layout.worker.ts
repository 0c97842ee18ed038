/** Lays maps out beside the page, which goes on meanwhile. */

import { lay } from "./layout";
import type { Drawing, Layout } from "./shape";

export type Order = { number: number; drawn: Drawing };
export type Done = { number: number; layout: Layout };

self.addEventListener("message", ({ data: { number, drawn } }: MessageEvent<Order>) => {
  self.postMessage({ number, layout: lay(drawn) } satisfies Done);
});

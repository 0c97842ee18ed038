import { address, get, signedOut } from "./client";
import type { Session } from "./types";

export type Line = "connecting" | "open" | "lost";
type Told = { [event: string]: (data: never) => void };

const PATIENCE = [1, 2, 5, 10];

/**
 * Follows a stream of server-sent events until the function that it returns is called.
 *
 * The browser comes back by itself when a connection breaks; after an answer that is no stream it does not, and
 * does not say why either. Then the session is asked for, which tells a login that ended from a server that did.
 */
export function follow(path: string, told: Told, line: (state: Line, why?: string) => void): () => void {
  let source: EventSource | null = null;
  let timer = 0;
  let failures = 0;
  let over = false;

  const open = () => {
    source = new EventSource(address(path));
    for (const [event, tell] of Object.entries(told)) {
      source.addEventListener(event, (message) => {
        failures = 0;
        tell(JSON.parse(message.data) as never);
      });
    }
    source.addEventListener("open", () => line("open"));
    source.addEventListener("problem", (message) => {
      over = true;
      source?.close();
      line("lost", (JSON.parse(message.data) as { detail?: string }).detail ?? "The stream ended.");
    });
    source.addEventListener("error", () => {
      line(failures++ < 1 ? "connecting" : "lost");
      if (source?.readyState === EventSource.CLOSED && !over) void retry();
    });
  };

  const retry = async () => {
    const wait = PATIENCE[Math.min(failures, PATIENCE.length) - 1] ?? 1;
    const session = await get<Session>("session").catch(() => null);
    if (over) return;
    if (session && !session.authenticated) signedOut();
    else timer = window.setTimeout(open, wait * 1000);
  };

  line("connecting");
  open();
  return () => {
    over = true;
    window.clearTimeout(timer);
    source?.close();
  };
}

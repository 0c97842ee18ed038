import { describe, expect, test } from "vitest";
import type { Flow, FlowBatch } from "../api/types";
import { pathOf, tell } from "./describe";
import { EMPTY, fed, KEPT } from "./feed";

const web = { namespace: "shop", pod_name: "web-1", labels: ["k8s:app=web"] };
const db = { namespace: "shop", pod_name: "db-0" };
const flow = (more: Partial<Flow>): Flow => ({
  time: "2026-01-31T12:00:00.000000001Z",
  verdict: "FORWARDED",
  source: web,
  destination: db,
  IP: { source: "10.0.0.1", destination: "10.0.0.2" },
  l4: { TCP: { source_port: 40000, destination_port: 5432 } },
  ...more,
});

describe("a row", () => {
  test("names client and server, and the server's port", () => {
    const told = tell(flow({}));
    expect([told.source.name, told.destination.name, told.port]).toEqual(["shop/web-1", "shop/db-0", "5432"]);
  });

  test("keeps the client in front when the server answers", () => {
    const told = tell(
      flow({
        source: db,
        destination: web,
        is_reply: true,
        l4: { TCP: { source_port: 5432, destination_port: 40000 } },
      }),
    );
    expect([told.source.name, told.destination.name, told.port]).toEqual(["shop/web-1", "shop/db-0", "5432"]);
  });

  test("says of whom nobody knows a pod what is known", () => {
    expect(tell(flow({ destination: { labels: ["reserved:world"] } })).destination).toEqual({
      name: "10.0.0.2",
      detail: "world",
    });
  });

  test("says what was asked for and what came of it", () => {
    const l7 = {
      type: "RESPONSE",
      latency_ns: 3e6,
      http: { method: "GET", url: "http://web/a?b=1", code: 503 },
    };
    expect(tell(flow({ l7 })).what).toBe("GET /a?b=1 → 503 · 3 ms");
    expect(tell(flow({ l7: { type: "REQUEST", dns: { query: "a.example.", qtypes: ["AAAA"] } } })).what).toBe(
      "AAAA a.example.",
    );
    expect(tell(flow({ event: "drop", drop_reason_desc: "POLICY_DENIED" })).what).toBe("POLICY_DENIED");
    expect(tell(flow({ event: "end", duration_ns: 2e9, bytes: 10, reply_bytes: 2000 })).what).toBe(
      "ended after 2 s · 10 B ↑ 2 kB ↓",
    );
  });

  test("names a policy once that decided at both ends", () => {
    const policy = { kind: "NetworkPolicy", namespace: "shop", name: "db" };
    expect(tell(flow({ egress_denied_by: [policy], ingress_denied_by: [{ ...policy }] })).deniedBy).toEqual([
      policy,
    ]);
  });

  test("leaves a URL that is none as it is", () => {
    expect(pathOf("/already/a/path")).toBe("/already/a/path");
    expect(pathOf("http://host")).toBe("/");
  });
});

describe("a feed", () => {
  const batch = (count: number, notShown = 0): FlowBatch => ({
    flows: Array.from({ length: count }, (_, at) => ({ id: String(at), flow: flow({}) })),
    not_shown: notShown,
    rate: count,
    verdicts: {},
    lost: 1,
    absent: [],
  });

  test("keeps the newest rows, and counts all", () => {
    let feed = EMPTY;
    for (let i = 0; i < 3; i++) feed = fed(feed, batch(KEPT / 2 + 1));
    expect(feed.rows).toHaveLength(KEPT);
    expect([feed.seen, feed.lost]).toEqual([3 * (KEPT / 2 + 1), 3]);
  });

  test("stays with rates for a while after a crowd", () => {
    let feed = fed(EMPTY, batch(1, 500));
    expect(feed.crowded).toBeGreaterThan(0);
    const first = feed.crowded;
    feed = fed(feed, batch(1));
    expect(feed.crowded).toBe(first - 1);
    for (let i = 0; i < first; i++) feed = fed(feed, batch(1));
    expect(feed.crowded).toBe(0);
  });

  test("of an empty batch keeps the very rows", () => {
    const feed = fed(EMPTY, batch(2));
    expect(fed(feed, batch(0)).rows).toBe(feed.rows);
  });
});

/** Answers for `npm run mock`, which shows the page without a cluster. No part of what is built. */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Plugin } from "vite";
import type { FlowBatch, MapDelta, Row } from "../src/api/types";
import { answer, mapState } from "./answers.ts";
import { edges, flow, WAYS } from "./shop.ts";

export function mockApi(): Plugin {
  return {
    name: "mock-api",
    configureServer(server) {
      server.middlewares.use("/api/v1", (request, response) => void serve(request, response));
    },
  };
}

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://mock");
  const path = url.pathname.slice(1);
  if (path.endsWith("/stream")) return stream(path, url.searchParams, request, response);
  let text = "";
  for await (const part of request) text += part;
  const found = answer(path, url.searchParams, text ? JSON.parse(text) : {});
  response.statusCode = found === null ? 404 : 200;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(found ?? { detail: `there is no ${path}` }));
}

function stream(
  path: string,
  query: URLSearchParams,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  response.setHeader("Content-Type", "text/event-stream");
  const send = (event: string, data: unknown) =>
    response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  const tick = path === "map/stream" ? maps(send) : flows(send, query);
  const timer = setInterval(tick, 250);
  request.on("close", () => clearInterval(timer));
}

type Send = (event: string, data: unknown) => void;

function maps(send: Send): () => void {
  send("map", mapState());
  let revision = 1;
  return () => {
    if (++revision % 4) return;
    const delta: MapDelta = {
      ...mapState(),
      revision,
      cards: [],
      edges: edges(),
      gone_cards: [],
      gone_edges: [],
    };
    send("delta", delta);
  };
}

function flows(send: Send, query: URLSearchParams): () => void {
  const wanted = query.getAll("verdict");
  const among = WAYS.filter((each) => !wanted.length || wanted.includes(each.verdict));
  const tenfold = query.has("namespace") ? 1 : 0.2;
  return () => {
    const rows: Row[] = [];
    for (const each of among) {
      const due = (each.rate / 4) * tenfold;
      const count = Math.floor(due) + (Math.random() < due % 1 ? 1 : 0);
      for (let i = 0; i < count; i++) rows.push(flow(each, Date.now()));
    }
    const rate = among.reduce((sum, each) => sum + each.rate, 0) * tenfold;
    const many = query.get("namespace") === "kube-system";
    const batch: FlowBatch = {
      flows: rows,
      not_shown: many ? 900 : 0,
      rate: many ? rate * 40 : rate,
      verdicts: { FORWARDED: many ? rate * 39 : rate, DROPPED: many ? rate : 0.8 },
      ...(many
        ? {
            busiest: edges().map((edge) => ({
              source: edge.source,
              destination: edge.destination,
              source_text: edge.source,
              destination_text: edge.destination,
              port: edge.port,
              protocol: edge.protocol,
              verdict: Object.keys(edge.verdicts)[0] ?? "",
              rate: (Object.values(edge.verdicts)[0]?.rate ?? 0) * 40,
            })),
          }
        : {}),
      lost: 0,
      absent: [],
    };
    send("flows", batch);
  };
}

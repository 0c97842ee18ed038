/** The newest flows of a stream. Batches come at most four times a second, so whole values are cheap. */

import type { Absent, Busy, FlowBatch, Row } from "../api/types";

/** How many rows are kept in the page; older ones are in the record. */
export const KEPT = 5000;
/** How many seconds of rates are kept, at most four a second. */
const HISTORY = 240;
/** For how many batches rates stay in place of rows after the last of which some were left out. */
const CALM = 12;

export type Feed = {
  /** Oldest first. */
  rows: Row[];
  seen: number;
  rate: number;
  verdicts: Record<string, number>;
  rates: number[];
  busiest: Busy[];
  /** Batches until rows are shown again; 0: they are. */
  crowded: number;
  lost: number;
  absent: Absent[];
};

export const EMPTY: Feed = {
  rows: [],
  seen: 0,
  rate: 0,
  verdicts: {},
  rates: [],
  busiest: [],
  crowded: 0,
  lost: 0,
  absent: [],
};

export function fed(feed: Feed, batch: FlowBatch): Feed {
  const rows = batch.flows.length ? [...feed.rows, ...batch.flows].slice(-KEPT) : feed.rows;
  return {
    rows,
    seen: feed.seen + batch.flows.length + batch.not_shown,
    rate: batch.rate,
    verdicts: batch.verdicts ?? {},
    rates: [...feed.rates, batch.rate].slice(-HISTORY),
    busiest: batch.busiest ?? feed.busiest,
    crowded: batch.not_shown > 0 ? CALM : Math.max(0, feed.crowded - 1),
    lost: feed.lost + batch.lost,
    absent: batch.absent,
  };
}

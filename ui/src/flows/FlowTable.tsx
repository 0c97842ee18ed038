import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, memo, useEffect, useId, useRef, useState } from "react";
import type { Flow, Row } from "../api/types";
import { clock } from "../parts/numbers";
import { Button, Verdict } from "../parts/parts";
import { useShortcuts } from "../shell/useShortcuts";
import { type Party, tell } from "./describe";
import styles from "./FlowTable.module.css";

const HEIGHT = 27;
const COLUMNS = ["Time", "Verdict", "Source", "Destination", "Port", "What", "Decided by", "Node"];

type Props = {
  /** Oldest first; the newest stands on top. */
  rows: Row[];
  selected: string;
  onSelect: (id: string) => void;
  onOlder: (() => void) | null;
};

/** Only the rows in sight are in the page. Whoever scrolls down keeps what is there, until back at the top. */
export function FlowTable({ rows, selected, onSelect, onOlder }: Props) {
  const area = useRef<HTMLDivElement>(null);
  const [held, setHeld] = useState<Row[] | null>(null);
  const shown = held ?? rows;
  const last = shown.length - 1;
  const prefix = useId();
  const [cursor, setCursor] = useState("");
  const virtual = useVirtualizer({
    count: shown.length,
    getScrollElement: () => area.current,
    estimateSize: () => HEIGHT,
    getItemKey: (index) => shown[last - index]?.id ?? index,
    overscan: 12,
  });
  // A list that begins anew has nothing in common with what is held.
  const newest = rows[rows.length - 1]?.id;
  const oldest = held?.[0]?.id;
  useEffect(() => {
    if (held && newest === undefined) setHeld(null);
  }, [held, newest]);

  const scrolled = () => {
    const top = area.current?.scrollTop ?? 0;
    if (top > HEIGHT && !held && !onOlder) setHeld(rows);
    if (top <= 1 && held) setHeld(null);
  };
  const missed = held ? count(rows, held) : 0;
  const index = shown.findLastIndex((row) => row.id === (cursor || selected));
  const move = (by: number) => {
    const at = index < 0 ? 0 : Math.min(last, Math.max(0, last - index + by));
    const row = shown[last - at];
    if (!row) return;
    if (!held) setHeld(shown);
    setCursor(row.id);
    virtual.scrollToIndex(at, { align: "auto" });
    if (selected) onSelect(row.id);
  };
  const open = () => {
    const row = shown[index];
    if (row) onSelect(row.id);
  };
  const press = (event: KeyboardEvent) => {
    const page = Math.floor((area.current?.clientHeight ?? 300) / HEIGHT) - 1;
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: -last,
      End: last,
    };
    const by = steps[event.key];
    if (by !== undefined) move(by);
    else if (event.key === "Enter") open();
    else return;
    event.preventDefault();
  };
  useShortcuts({ j: () => move(1), k: () => move(-1), Enter: open });

  return (
    <div className={styles.place}>
      <div
        aria-activedescendant={cursor ? `${prefix}${cursor}` : undefined}
        aria-colcount={COLUMNS.length}
        aria-label="Flows, newest first"
        aria-rowcount={shown.length + 1}
        className={styles.table}
        data-oldest={oldest}
        onKeyDown={press}
        onScroll={scrolled}
        ref={area}
        role="grid"
        tabIndex={0}
      >
        <div className={styles.head} role="rowgroup">
          <div aria-rowindex={1} className={styles.row} role="row" tabIndex={-1}>
            {COLUMNS.map((column) => (
              <div key={column} role="columnheader" tabIndex={-1}>
                {column}
              </div>
            ))}
          </div>
        </div>
        <div className={styles.body} role="rowgroup" style={{ height: virtual.getTotalSize() }}>
          {virtual.getVirtualItems().map((item) => {
            const row = shown[last - item.index];
            return (
              row && (
                <Line
                  cursor={row.id === cursor}
                  flow={row.flow}
                  id={row.id}
                  index={item.index}
                  key={item.key}
                  onSelect={onSelect}
                  prefix={prefix}
                  selected={row.id === selected}
                  top={item.start}
                />
              )
            );
          })}
        </div>
        {onOlder && (
          <div className={styles.older}>
            <Button onClick={onOlder}>Older ones</Button>
          </div>
        )}
      </div>
      {held && missed > 0 && (
        <button
          className={styles.pill}
          onClick={() => {
            setHeld(null);
            setCursor("");
            area.current?.scrollTo({ top: 0 });
          }}
          type="button"
        >
          {missed.toLocaleString("en")} new
        </button>
      )}
    </div>
  );
}

/** How many rows came after the last of those that are held. */
function count(rows: Row[], held: Row[]): number {
  const newest = held[held.length - 1]?.id;
  const at = rows.findLastIndex((row) => row.id === newest);
  return at < 0 ? rows.length : rows.length - 1 - at;
}

type LineProps = {
  id: string;
  flow: Flow;
  index: number;
  top: number;
  prefix: string;
  cursor: boolean;
  selected: boolean;
  onSelect: (id: string) => void;
};

const Line = memo(({ id, flow, index, top, prefix, cursor, selected, onSelect }: LineProps) => {
  const told = tell(flow);
  const [policy] = told.deniedBy.length ? told.deniedBy : told.allowedBy;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: keys are the grid's
    <div
      aria-rowindex={index + 2}
      aria-selected={selected}
      className={`${styles.row} ${styles.line} ${cursor ? styles.cursor : ""} ${flow.verdict === "DROPPED" ? styles.dropped : ""}`}
      data-row-id={id}
      id={`${prefix}${id}`}
      onClick={() => onSelect(id)}
      role="row"
      style={{ transform: `translateY(${top}px)` }}
      tabIndex={-1}
    >
      <div className={styles.time} role="gridcell" tabIndex={-1}>
        {clock(flow.time)}
      </div>
      <div role="gridcell" tabIndex={-1}>
        <Verdict verdict={flow.verdict} />
      </div>
      <End party={told.source} />
      <End party={told.destination} />
      <div className={styles.mono} role="gridcell" tabIndex={-1}>
        {told.port && <b>{told.port}</b>} <span>{told.protocol}</span>
      </div>
      <div className={styles.mono} role="gridcell" tabIndex={-1} title={told.what}>
        {told.what}
      </div>
      <div className={styles.aside} role="gridcell" tabIndex={-1}>
        {policy && (policy.namespace ? `${policy.namespace}/${policy.name}` : policy.name)}
      </div>
      <div className={styles.aside} role="gridcell" tabIndex={-1}>
        {flow.node_name}
      </div>
    </div>
  );
});

function End({ party: { name, detail } }: { party: Party }) {
  return (
    <div role="gridcell" tabIndex={-1} title={detail ? `${name} (${detail})` : name}>
      {name} <span className={styles.detail}>{detail}</span>
    </div>
  );
}

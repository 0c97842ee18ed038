import { BaseEdge, type Edge as DrawnEdge, EdgeLabelRenderer, type EdgeProps } from "@xyflow/react";
import { memo } from "react";
import type { Edge } from "../api/types";
import { rate } from "../parts/numbers";
import type { Tone } from "../parts/parts";
import { line, loop, type Point } from "./route";
import type { Total } from "./state";
import styles from "./WayEdge.module.css";

type Data = {
  totals: ReadonlyMap<Tone, Total>;
  /** Where it passes the columns between its ends. */
  route: Point[];
  /** Of who calls itself: the upper side of its card. */
  top: number | undefined;
  label: boolean;
  dim: boolean;
  verdicts: Edge["verdicts"];
};
export type WayEdge = DrawnEdge<Data, "way">;

const NOTHING: Data = {
  totals: new Map(),
  route: [],
  top: undefined,
  label: false,
  dim: false,
  verdicts: {},
};

/** The colour of what passed, and over it, dashed, that of what is refused or only tried at the moment. */
export const WayView = memo((props: EdgeProps<WayEdge>) => {
  const { id, data = NOTHING, selected, sourceX, sourceY, targetX, targetY } = props;
  const { totals, route, top, label, dim, verdicts } = data;
  const [source, target] = [
    { x: sourceX, y: sourceY },
    { x: targetX, y: targetY },
  ];
  const { path, middle } = top === undefined ? line(source, target, route) : loop(source, target, top);
  const passed = (totals.get("good")?.rate ?? 0) + (totals.get("aside")?.rate ?? 0);
  const passes = totals.has("good") || totals.has("aside");
  const refused = totals.get("bad");
  const tried = totals.get("tried");
  const all = [...totals.values()].reduce((sum, total) => sum + total.rate, 0);
  const width = 1.1 + Math.min(3.4, Math.log10(1 + all) * 1.15);
  const idle = all === 0;
  const base = passes
    ? totals.has("good")
      ? styles.good
      : styles.aside
    : refused
      ? styles.bad
      : styles.tried;
  return (
    <g
      data-edge-id={id}
      data-verdicts={Object.keys(verdicts).join(" ")}
      className={`${dim ? styles.dim : ""} ${selected ? styles.selected : ""}`}
    >
      <BaseEdge
        className={`${styles.line} ${base} ${idle ? styles.idle : ""}`}
        id={id}
        interactionWidth={14}
        markerEnd={props.markerEnd ?? ""}
        path={path}
        style={{ strokeWidth: selected ? width + 1 : width }}
      />
      {passes && refused && refused.rate > 0 && <path className={`${styles.over} ${styles.bad}`} d={path} />}
      {passes && tried && tried.rate > 0 && !refused && (
        <path className={`${styles.over} ${styles.tried}`} d={path} />
      )}
      {(label || selected) && (
        <EdgeLabelRenderer>
          <div
            className={`${styles.label} ${dim ? styles.dim : ""}`}
            style={{ transform: `translate(-50%, -50%) translate(${middle.x}px, ${middle.y}px)` }}
          >
            {passes && (!idle || !(refused || tried)) && <span>{idle ? "idle" : rate(passed)}</span>}
            {refused && <span className={styles.refused}>✕ {said(refused)}</span>}
            {tried && <span className={styles.only}>! {said(tried)}</span>}
          </div>
        </EdgeLabelRenderer>
      )}
    </g>
  );
});

/** A rate, or how many there were when there is nothing now. */
function said({ rate: now, count }: Total): string {
  return now > 0 ? rate(now) : String(count);
}

import { Handle, type Node, type NodeProps, Position } from "@xyflow/react";
import { memo } from "react";
import type { Card } from "../api/types";
import { Icon, type IconName } from "../parts/Icon";
import { plural, rate } from "../parts/numbers";
import styles from "./CardNode.module.css";
import { shownCalls } from "./shape";
import { portKey } from "./state";

export type CardNode = Node<{ card: Card; dim: boolean; port: string }, "card">;
export type GroupNode = Node<{ name: string }, "namespace">;

const ICONS: Record<Card["kind"], IconName> = {
  workload: "box",
  world: "globe",
  node: "server",
  service: "filter",
  other: "box",
};

export const CardView = memo(({ data: { card, dim, port: chosen }, selected }: NodeProps<CardNode>) => (
  <div
    data-card-id={card.id}
    className={`${styles.card} ${styles[card.kind]} ${selected ? styles.selected : ""} ${dim ? styles.dim : ""}`}
  >
    <Handle
      className={styles.handle}
      id="out"
      isConnectable={false}
      position={Position.Right}
      type="source"
    />
    <Handle className={styles.handle} id="in" isConnectable={false} position={Position.Left} type="target" />
    <header>
      <Icon name={ICONS[card.kind]} size={15} />
      <div>
        <h2 title={card.name}>{card.name}</h2>
        <p>{subtitle(card)}</p>
      </div>
    </header>
    {card.ports.length > 0 && (
      <ul>
        {card.ports.map((port) => {
          const { calls, more } = shownCalls(port);
          const key = portKey(port);
          return (
            <li className={chosen === key ? styles.chosen : ""} key={key}>
              <div className={styles.port}>
                <Handle
                  className={styles.handle}
                  id={key}
                  isConnectable={false}
                  position={Position.Left}
                  type="target"
                />
                <b>{port.port}</b>
                <span>{port.protocol}</span>
              </div>
              {calls.map((call) => (
                <div className={styles.call} key={call.kind + call.what} title={call.what}>
                  <span>{call.what}</span>
                  <em className={call.dropped ? styles.bad : call.failed ? styles.failed : ""}>
                    {call.dropped ? `✕ ${call.dropped}` : rate(call.rate)}
                  </em>
                </div>
              ))}
              {more > 0 && <div className={styles.more}>{more} more</div>}
            </li>
          );
        })}
      </ul>
    )}
  </div>
));

function subtitle(card: Card): string {
  switch (card.kind) {
    case "workload":
      return [card.namespace, card.workload_kind === "Pod" ? "pod" : plural(card.pods.length, "pod")]
        .filter(Boolean)
        .join(" · ");
    case "world":
      return "outside of the cluster";
    case "service":
      return `${card.namespace} · no backends`;
    default:
      return card.kind === "node" ? "node" : "";
  }
}

export const GroupView = memo(({ data }: NodeProps<GroupNode>) => (
  <div className={styles.group}>
    <span>{data.name}</span>
  </div>
));

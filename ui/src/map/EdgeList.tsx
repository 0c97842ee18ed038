import type { Card, Edge } from "../api/types";
import { rate } from "../parts/numbers";
import { To } from "../parts/parts";
import type { Selection } from "./Canvas";
import styles from "./EdgeList.module.css";
import { totals, type Wanted } from "./state";

type Props = {
  edges: Edge[];
  cards: ReadonlyMap<string, Card>;
  wanted: Wanted;
  /** The end that everybody knows already. */
  but?: string;
  onSelect: (selection: Selection) => void;
};

export function EdgeList({ edges, cards, wanted, but = "", onSelect }: Props) {
  const name = (id: string) => cards.get(id)?.name ?? id;
  return (
    <ul className={styles.list}>
      {edges.map((edge) => {
        const found = totals(edge, wanted);
        const refused = found.get("bad");
        const tried = found.get("tried");
        const passed = (found.get("good")?.rate ?? 0) + (found.get("aside")?.rate ?? 0);
        return (
          <li key={edge.id}>
            <button onClick={() => onSelect({ card: "", edge: edge.id })} type="button">
              <span className={styles.ends}>
                {edge.source !== but && <b>{name(edge.source)}</b>}
                {edge.source !== but && edge.destination !== but && <To />}
                {edge.destination !== but && <b>{name(edge.destination)}</b>}
                <span className={styles.port}>
                  {edge.port}/{edge.protocol}
                </span>
              </span>
              <span className={styles.rates}>
                {(found.has("good") || found.has("aside")) && <span>{rate(passed)}</span>}
                {refused && (
                  <span className={styles.bad}>✕ {refused.rate ? rate(refused.rate) : refused.count}</span>
                )}
                {tried && (
                  <span className={styles.tried}>! {tried.rate ? rate(tried.rate) : tried.count}</span>
                )}
              </span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

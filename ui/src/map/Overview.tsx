import type { Card, Edge } from "../api/types";
import { plural } from "../parts/numbers";
import { Panel, Section } from "../parts/parts";
import type { Selection } from "./Canvas";
import { EdgeList } from "./EdgeList";
import { totals, type Wanted } from "./state";

type Props = { cards: Card[]; edges: Edge[]; wanted: Wanted; onSelect: (selection: Selection) => void };

/** The map in words: what is refused, and what is busiest. */
export function Overview({ cards, edges, wanted, onSelect }: Props) {
  const names = new Map(cards.map((card) => [card.id, card]));
  const rated = edges.map((edge) => ({ edge, totals: totals(edge, wanted) }));
  const refused = rated
    .filter((each) => each.totals.has("bad") || each.totals.has("tried"))
    .sort((a, b) => last(b.totals).localeCompare(last(a.totals)));
  const busy = rated
    .filter((each) => each.totals.has("good") || each.totals.has("aside"))
    .sort((a, b) => all(b.totals) - all(a.totals));
  return (
    <Panel label="Overview" line={plural(edges.length, "edge")} title={plural(cards.length, "workload")}>
      <Section title="Refused or only tried">
        {refused.length ? (
          <EdgeList
            cards={names}
            edges={refused.slice(0, 100).map((each) => each.edge)}
            onSelect={onSelect}
            wanted={wanted}
          />
        ) : (
          <p className="muted">Nothing in this time.</p>
        )}
      </Section>
      <Section title="Busiest">
        <EdgeList
          cards={names}
          edges={busy.slice(0, 40).map((each) => each.edge)}
          onSelect={onSelect}
          wanted={wanted}
        />
      </Section>
    </Panel>
  );
}

type Totals = ReturnType<typeof totals>;

function last(found: Totals): string {
  const [bad, tried] = [found.get("bad")?.last ?? "", found.get("tried")?.last ?? ""];
  return bad > tried ? bad : tried;
}

function all(found: Totals): number {
  return [...found.values()].reduce((sum, total) => sum + total.rate, 0);
}

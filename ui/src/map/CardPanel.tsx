import type { Card } from "../api/types";
import { Button, ButtonLink, Facts, Panel, Section, Tag } from "../parts/parts";
import { across, changed, go, link } from "../place/place";
import { CallTable } from "./CallTable";
import type { Selection } from "./Canvas";
import { EdgeList } from "./EdgeList";
import styles from "./panels.module.css";
import { filtersFor, nameOf, type Shown } from "./state";

const ALL = new Set<string>();

type Props = {
  card: Card;
  shown: Shown;
  query: URLSearchParams;
  onSelect: (selection: Selection) => void;
  onClose: () => void;
};

export function CardPanel({ card, shown, query, onSelect, onClose }: Props) {
  const edges = [...shown.edges.values()];
  const out = edges.filter((edge) => edge.source === card.id);
  const into = edges.filter((edge) => edge.destination === card.id);
  const kept = changed(across(query), { verdict: null, namespace: null });
  const flows = new URLSearchParams([...filtersFor(card, ""), ...kept]);
  const workload = changed(across(query), { workload: card.id });
  return (
    <Panel
      label="Workload"
      line={[card.workload_kind, card.namespace].filter(Boolean).join(" in ")}
      onClose={onClose}
      title={card.name}
    >
      <div className={styles.links}>
        <ButtonLink href={link("flows", flows)} icon="flows">
          Flows
        </ButtonLink>
        {card.kind === "workload" && (
          <ButtonLink href={link("policies", workload)} icon="policies">
            Policies
          </ButtonLink>
        )}
        <Button
          onClick={() =>
            go(link("map", changed(query, { card: null, hide: [...query.getAll("hide"), card.id] })))
          }
        >
          Hide
        </Button>
      </div>
      {into.length > 0 && (
        <Section title="Called by">
          <EdgeList but={card.id} cards={shown.cards} edges={into} onSelect={onSelect} wanted={ALL} />
        </Section>
      )}
      {out.length > 0 && (
        <Section title="Calls">
          <EdgeList but={card.id} cards={shown.cards} edges={out} onSelect={onSelect} wanted={ALL} />
        </Section>
      )}
      {card.ports
        .filter((port) => port.calls.length > 0)
        .map((port) => (
          <Section key={`${port.port}/${port.protocol}`} title={`Requests at ${port.port}/${port.protocol}`}>
            <CallTable calls={port.calls} more={port.calls_not_shown} />
          </Section>
        ))}
      <Section title="Who it is">
        <Facts
          facts={[
            ["Name", nameOf(card)],
            ["Kind", card.workload_kind || card.kind],
            ["Pods", card.pods.length ? card.pods.join(", ") : ""],
          ]}
        />
        <div className={styles.tags}>
          {card.labels.map((label) => (
            <Tag key={label} title={label}>
              {label}
            </Tag>
          ))}
        </div>
      </Section>
    </Panel>
  );
}

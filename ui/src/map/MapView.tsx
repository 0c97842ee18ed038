import { useMemo } from "react";
import { Button, Empty, Missing, ProblemNotice } from "../parts/parts";
import { changed, go, link, usePlace } from "../place/place";
import { useShortcuts } from "../shell/useShortcuts";
import { secondsOf } from "../time/span";
import { TimeBar } from "../time/TimeBar";
import { Canvas, type Selection } from "./Canvas";
import { CardPanel } from "./CardPanel";
import { EdgePanel } from "./EdgePanel";
import styles from "./MapView.module.css";
import { Overview } from "./Overview";
import { visible } from "./state";
import { useMap } from "./useMap";
import { VerdictToggles } from "./VerdictToggles";

/** For how long the server keeps edges that are not used, in seconds. */
const LONGEST = 3600;

export default function MapView() {
  const { query } = usePlace();
  const [since, until] = [query.get("since") ?? "", query.get("until") ?? ""];
  const { shown, line, problem } = useMap(
    query.getAll("namespace"),
    since,
    until,
    Math.min(LONGEST, secondsOf(query.get("scope"))),
  );
  const verdicts = query.getAll("verdict").join(" ");
  const wanted = useMemo(() => new Set(verdicts.split(" ").filter(Boolean)), [verdicts]);
  const hide = query.getAll("hide");
  const nodes = query.get("nodes") === "shown";
  const hiding = hide.join("\n");
  const seen = useMemo(
    () =>
      shown
        ? visible(shown, wanted, { ids: new Set(hiding.split("\n")), nodes: !nodes })
        : { cards: [], edges: [] },
    [shown, wanted, hiding, nodes],
  );
  const selection: Selection = { card: query.get("card") ?? "", edge: query.get("edge") ?? "" };
  const select = ({ card, edge }: Selection) => go(link("map", changed(query, { card, edge })));
  const close = () => select({ card: "", edge: "" });
  useShortcuts({ Escape: close, l: () => go(link("map", changed(query, { since: null, until: null }))) });
  const card = shown?.cards.get(selection.card);
  const edge = shown?.edges.get(selection.edge);

  return (
    <div className={styles.view}>
      <div className={styles.stage}>
        <div className={styles.tools}>
          <VerdictToggles
            edges={shown ? [...shown.edges.values()] : []}
            onChange={(verdict) => go(link("map", changed(query, { verdict })))}
            wanted={wanted}
          />
          <Button
            aria-pressed={nodes}
            icon="server"
            onClick={() => go(link("map", changed(query, { nodes: nodes ? null : "shown" })))}
            title="Nodes, and how they look whether pods are well"
          >
            Nodes
          </Button>
          {hide.map((id) => (
            <Button
              icon="close"
              key={id}
              onClick={() => go(link("map", changed(query, { hide: hide.filter((each) => each !== id) })))}
              title="Show it again"
            >
              {shown?.cards.get(id)?.name ?? id} is hidden
            </Button>
          ))}
        </div>
        {shown && seen.cards.length > 0 && (
          <Canvas
            cards={seen.cards}
            edges={seen.edges}
            onSelect={select}
            selection={selection}
            wanted={wanted}
          />
        )}
        {shown && seen.cards.length === 0 && (
          <Empty title={wanted.size ? "Nothing with these verdicts" : "No traffic yet"}>
            {wanted.size
              ? "Other verdicts are hidden."
              : "Workloads appear here as soon as one calls another. Policies and nodes can be looked at meanwhile."}
          </Empty>
        )}
        <div className={styles.notices}>
          {problem && <ProblemNotice problem={problem} />}
          {!problem && line === "lost" && (
            <p className={styles.lost} role="status">
              The server does not answer; what is shown is old.
            </p>
          )}
          {shown && <Missing absent={shown.absent} lost={shown.lost} />}
          {shown && shown.notShown.cards + shown.notShown.edges > 0 && (
            <p className={styles.lost} role="status">
              {shown.notShown.cards} workloads and {shown.notShown.edges} edges are left away; choose
              namespaces.
            </p>
          )}
        </div>
      </div>
      {shown && card ? (
        <CardPanel card={card} onClose={close} onSelect={select} query={query} shown={shown} />
      ) : shown && edge ? (
        <EdgePanel edge={edge} onClose={close} onSelect={select} query={query} shown={shown} />
      ) : (
        <Overview cards={seen.cards} edges={seen.edges} onSelect={select} wanted={wanted} />
      )}
      <TimeBar />
    </div>
  );
}

import {
  Background,
  type ColorMode,
  Controls,
  type Edge as DrawnEdge,
  type Node as DrawnNode,
  getViewportForBounds,
  MarkerType,
  ReactFlow,
  ReactFlowProvider,
  useReactFlow,
  useStore,
} from "@xyflow/react";
import "@xyflow/react/dist/base.css";
import { useEffect, useMemo, useRef } from "react";
import type { Card, Edge } from "../api/types";
import { rate } from "../parts/numbers";
import { useShortcuts } from "../shell/useShortcuts";
import { useTheme } from "../theme/theme";
import styles from "./Canvas.module.css";
import { type CardNode, CardView, type GroupNode, GroupView } from "./CardNode";
import type { Point } from "./route";
import { around, drawing, type Layout, type Spot, wayKey } from "./shape";
import { nameOf, neighbours, portKey, totals, type Wanted } from "./state";
import { useLayout } from "./useLayout";
import { type WayEdge, WayView } from "./WayEdge";

const NODES = { card: CardView, namespace: GroupView };
const EDGES = { way: WayView };
/** With more edges than this, only those that are looked at say their rates. */
const LABELS = 140;

export type Selection = { card: string; edge: string };

type Props = {
  cards: Card[];
  edges: Edge[];
  wanted: Wanted;
  selection: Selection;
  onSelect: (selection: Selection) => void;
};

export function Canvas(props: Props) {
  return (
    <ReactFlowProvider>
      <Drawn {...props} />
    </ReactFlowProvider>
  );
}

function Drawn({ cards, edges, wanted, selection, onSelect }: Props) {
  const theme = useTheme();
  const flow = useReactFlow();
  const drawn = useMemo(() => drawing(cards, edges), [cards, edges]);
  const { layout, shape } = useLayout(drawn);
  const chosen = edges.find((edge) => edge.id === selection.edge);
  const near = useMemo(() => {
    if (selection.card) return neighbours(edges, selection.card);
    return chosen ? new Set([chosen.source, chosen.destination]) : null;
  }, [edges, selection.card, chosen]);

  const nodes = useStable<CardNode | GroupNode>([
    ...[...layout.groups].map(([name, spot]) => groupNode(name, spot)),
    ...drawn.places.flatMap(({ id, card }): CardNode[] => {
      const spot = layout.places.get(id);
      if (!spot) return [];
      const port = chosen?.destination === card.id ? portKey(chosen) : "";
      return [
        {
          id,
          type: "card",
          position: { x: spot.x, y: spot.y },
          width: spot.width,
          height: spot.height,
          data: { card, dim: near !== null && !near.has(card.id), port },
          selected: card.id === selection.card,
          draggable: false,
          ariaLabel: `${card.kind} ${nameOf(card)}`,
        },
      ];
    }),
  ]);
  const names = useMemo(() => new Map(cards.map((card) => [card.id, card])), [cards]);
  const ways = useStable<WayEdge>(
    drawn.ways.flatMap((way): WayEdge[] => {
      const { edge, source, target } = way;
      if (!layout.places.has(source) || !layout.places.has(target)) return [];
      const focused =
        edge.id === selection.edge || edge.source === selection.card || edge.destination === selection.card;
      const bad = Object.hasOwn(edge.verdicts, "DROPPED");
      const key = portKey(edge);
      const there = names.get(edge.destination)?.ports.some((port) => portKey(port) === key);
      return [
        {
          id: edge.id,
          type: "way",
          source,
          target,
          sourceHandle: "out",
          targetHandle: there ? key : "in",
          data: {
            totals: totals(edge, wanted),
            route: layout.routes.get(wayKey(way)) ?? NO_POINTS,
            top: source === target ? layout.places.get(source)?.y : undefined,
            label: focused || edges.length <= LABELS || bad,
            dim: near !== null && !focused,
            verdicts: edge.verdicts,
          },
          selected: edge.id === selection.edge,
          markerEnd: { type: MarkerType.Arrow, width: 14, height: 14, color: "var(--edge)" },
          ariaLabel: describe(edge, names, wanted),
          zIndex: focused ? 1 : 0,
        },
      ];
    }),
  );

  const touched = useRef(false);
  const [width, height] = [useStore((store) => store.width), useStore((store) => store.height)];
  const showAll = (duration = 200) => {
    touched.current = false;
    if (layout.places.size === 0 || width === 0) return;
    const viewport = getViewportForBounds(extent(layout), width, height, 0.1, 1.1, MARGINS);
    void flow.setViewport(viewport, { duration });
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: when something came or went, not when numbers change
  useEffect(() => {
    if (!touched.current) showAll(0);
  }, [shape, width, height]);
  useShortcuts({ f: () => showAll() });

  return (
    <ReactFlow
      className={styles.canvas ?? ""}
      colorMode={theme as ColorMode}
      deleteKeyCode={null}
      edges={ways as DrawnEdge[]}
      edgesReconnectable={false}
      edgeTypes={EDGES}
      elevateEdgesOnSelect
      maxZoom={2}
      minZoom={0.1}
      nodes={nodes as DrawnNode[]}
      nodesConnectable={false}
      nodesDraggable={false}
      nodeTypes={NODES}
      onEdgeClick={(_, edge) => onSelect({ card: "", edge: edge.id })}
      onMoveStart={(event) => {
        if (event) touched.current = true;
      }}
      onNodeClick={(_, node) => isCard(node) && onSelect({ card: node.data.card.id, edge: "" })}
      onPaneClick={() => onSelect({ card: "", edge: "" })}
      onKeyDown={(event) => {
        const id = (event.target as Element).closest("[data-id]")?.getAttribute("data-id");
        if (event.key !== "Enter" || !id) return;
        const place = drawn.places.find((each) => each.id === id);
        onSelect(place ? { card: place.card.id, edge: "" } : { card: "", edge: id });
      }}
      onlyRenderVisibleElements={cards.length > 150}
    >
      <Background color="var(--line)" gap={22} size={1} />
      <Controls showInteractive={false} />
    </ReactFlow>
  );
}

const NO_POINTS: Point[] = [];
/** Above there are buttons. */
const MARGINS = { top: "54px", bottom: "24px", x: "24px" } as const;

function extent({ places, groups, routes }: Layout): Spot {
  const points = [...routes.values()].flat().map((point) => ({ ...point, width: 0, height: 0 }));
  return around([...places.values(), ...groups.values(), ...points]);
}

function isCard(node: DrawnNode): node is CardNode {
  return node.type === "card";
}

function groupNode(name: string, { x, y, width, height }: Spot): GroupNode {
  const still = { selectable: false, focusable: false, draggable: false };
  return {
    id: `namespace ${name}`,
    type: "namespace",
    position: { x, y },
    width,
    height,
    data: { name },
    zIndex: -1,
    ...still,
  };
}

function describe(edge: Edge, cards: ReadonlyMap<string, Card>, wanted: Wanted): string {
  const name = (id: string) => {
    const card = cards.get(id);
    return card ? nameOf(card) : id;
  };
  const said = [...totals(edge, wanted).entries()].map(
    ([kind, total]) => `${WORDS[kind]} ${rate(total.rate)}`,
  );
  return `${name(edge.source)} to ${name(edge.destination)} ${edge.port}/${edge.protocol}: ${said.join(", ")}`;
}

const WORDS = { good: "forwarded", bad: "dropped", tried: "audited", aside: "through a proxy" };

/** The same objects as last time where nothing in them changed, so that nothing is drawn twice. */
function useStable<T extends { id: string; data?: Record<string, unknown> }>(made: T[]): T[] {
  const known = useRef(new Map<string, T>());
  const stable = made.map((each) => {
    const old = known.current.get(each.id);
    return old && same(old, each) ? old : each;
  });
  useEffect(() => {
    known.current = new Map(stable.map((each) => [each.id, each]));
  });
  return stable;
}

function same(a: object, b: object): boolean {
  const names = Object.keys(b);
  return names.every((name) => {
    const [left, right] = [(a as never)[name] as unknown, (b as never)[name] as unknown];
    if (left === right) return true;
    if (typeof left !== "object" || typeof right !== "object" || !left || !right) return false;
    return name === "data" || name === "position" || name === "markerEnd" ? same(left, right) : false;
  });
}

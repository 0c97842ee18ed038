import { lazy, Suspense, useEffect, useMemo } from "react";
import { onSignedOut } from "../api/client";
import type { Meta, Session } from "../api/types";
import { useResource } from "../api/useResource";
import { FlowsView } from "../flows/FlowsView";
import { NodesView } from "../nodes/NodesView";
import { Empty, ProblemNotice } from "../parts/parts";
import { usePlace, type View } from "../place/place";
import { PoliciesView } from "../policies/PoliciesView";
import styles from "./App.module.css";
import { Boundary } from "./Boundary";
import { Login } from "./Login";
import { Known, useKnown } from "./session";
import { TopBar } from "./TopBar";

/** With what draws graphs, which nothing else needs. */
const MapView = lazy(() => import("../map/MapView"));

const NAMES: Record<View, string> = { map: "Map", flows: "Flows", policies: "Policies", nodes: "Nodes" };

export function App() {
  const { data: session, problem, reload } = useResource<Session>("session");
  useEffect(() => onSignedOut(reload), [reload]);
  if (problem) {
    return (
      <main className={styles.alone}>
        <ProblemNotice problem={problem} />
      </main>
    );
  }
  if (!session) return null;
  if (!session.authenticated) return <Login onDone={reload} session={session} />;
  return <Inside session={session} signOut={reload} />;
}

const NOTHING: Meta = { namespaces: [], nodes: [], filters: [] };

function Inside({ session, signOut }: { session: Session; signOut: () => void }) {
  const { view } = usePlace();
  const { data, problem } = useResource<Meta>("meta", 30);
  const meta = useMemo(() => data ?? NOTHING, [data]);
  useEffect(() => {
    document.title = `${NAMES[view]} · ${session.place || "Axoneme"}`;
  }, [view, session.place]);
  return (
    <Known meta={meta} session={session}>
      <div className={styles.page}>
        <button className={styles.skip} onClick={skip} type="button">
          Skip to content
        </button>
        <TopBar onSignedOut={signOut} view={view} />
        <main aria-label={NAMES[view]} className={styles.main} id="main" tabIndex={-1}>
          <h1 className="visually-hidden">{NAMES[view]}</h1>
          {problem && <ProblemNotice problem={problem} />}
          {/* Filters in the address mean nothing before it is known which there are. */}
          <Boundary key={view}>
            <Suspense>{data && <Shown view={view} />}</Suspense>
          </Boundary>
        </main>
      </div>
    </Known>
  );
}

function Shown({ view }: { view: View }) {
  const { session } = useKnown();
  switch (view) {
    case "map":
      return <MapView />;
    case "flows":
      return <FlowsView />;
    case "policies":
      return session.features.policies ? <PoliciesView /> : <NotHere what="Policies" />;
    case "nodes":
      return session.features.nodes ? <NodesView /> : <NotHere what="Nodes" />;
  }
}

function NotHere({ what }: { what: string }) {
  return (
    <Empty title={`${what} cannot be shown here`}>
      This server reads flows from a relay's address and does not reach the shared state of the cluster.
    </Empty>
  );
}

/** No link: the fragment is the place, and must not become "main". */
function skip(): void {
  document.getElementById("main")?.focus();
}

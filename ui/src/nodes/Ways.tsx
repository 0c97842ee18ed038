import { useState } from "react";
import type { Way } from "../api/types";
import { duration } from "../parts/numbers";
import { Button } from "../parts/parts";
import styles from "./NodesView.module.css";

const PATHS: Record<Way["path"], string> = { underlay: "Between nodes", pods: "Between pods" };

/** Who reaches whom, and how fast: one square for each pair, the worst of its ways. */
export function Ways({ names, ways }: { names: string[]; ways: Way[] }) {
  const [path, setPath] = useState<Way["path"]>("pods");
  const [chosen, setChosen] = useState<[string, string] | null>(null);
  const among = ways.filter((way) => way.path === path);
  const of = (source: string, destination: string) =>
    among.filter((way) => way.source === source && way.destination === destination);
  const detail = chosen ? of(...chosen) : among.filter((way) => way.state === "fails");
  return (
    <section aria-label="Ways between nodes" className={styles.ways}>
      <header>
        <h2>Ways between nodes</h2>
        {(Object.keys(PATHS) as Way["path"][]).map((each) => (
          <Button aria-pressed={each === path} key={each} onClick={() => setPath(each)}>
            {PATHS[each]}
          </Button>
        ))}
      </header>
      <div className={styles.frame}>
        <table className={styles.matrix}>
          <thead>
            <tr>
              <th scope="col">from, to</th>
              {names.map((name) => (
                <th key={name} scope="col">
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {names.map((source) => (
              <tr key={source}>
                <th scope="row">{source}</th>
                {names.map((destination) => (
                  <td key={destination}>
                    {source !== destination && (
                      <Square
                        name={`${source} to ${destination}`}
                        onClick={() => setChosen([source, destination])}
                        pressed={chosen?.[0] === source && chosen[1] === destination}
                        ways={of(source, destination)}
                      />
                    )}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <ul className={styles.detail}>
        {detail.map((way) => (
          <li key={`${way.source} ${way.destination} ${way.protocol} ${way.address}`}>
            <b>{way.source}</b> → <b>{way.destination}</b>{" "}
            <span className="mono">
              {way.protocol} {way.address}
            </span>
            : {way.state === "works" ? duration(way.latency ?? 0) : way.reason || way.state}
          </li>
        ))}
      </ul>
    </section>
  );
}

type SquareProps = { ways: Way[]; name: string; pressed: boolean; onClick: () => void };

function Square({ ways, name, pressed, onClick }: SquareProps) {
  const state = ways.some((way) => way.state === "fails")
    ? "fails"
    : ways.some((way) => way.state === "works")
      ? "works"
      : "unknown";
  const slowest = Math.max(0, ...ways.map((way) => way.latency ?? 0));
  const text = state === "works" ? duration(slowest) : state === "fails" ? "fails" : "–";
  return (
    <button
      aria-label={`${name}: ${text}`}
      aria-pressed={pressed}
      className={styles[state]}
      onClick={onClick}
      type="button"
    >
      {text}
    </button>
  );
}

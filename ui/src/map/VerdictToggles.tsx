import type { Edge } from "../api/types";
import { rate } from "../parts/numbers";
import { Button, Verdict } from "../parts/parts";
import type { Wanted } from "./state";
import styles from "./VerdictToggles.module.css";

type Props = { edges: Edge[]; wanted: Wanted; onChange: (verdicts: string[]) => void };

const ORDER = ["FORWARDED", "REDIRECTED", "AUDIT", "DROPPED", "ERROR"];

/** Each verdict that there is, with how often it comes; what is pressed is shown, and everything where nothing is. */
export function VerdictToggles({ edges, wanted, onChange }: Props) {
  const rates = new Map<string, number>();
  for (const verdict of wanted) rates.set(verdict, 0);
  for (const edge of edges)
    for (const [verdict, count] of Object.entries(edge.verdicts))
      rates.set(verdict, (rates.get(verdict) ?? 0) + count.rate);
  const there = [...rates].sort(([a], [b]) => ORDER.indexOf(a) - ORDER.indexOf(b));
  const toggle = (verdict: string) =>
    onChange(wanted.has(verdict) ? [...wanted].filter((each) => each !== verdict) : [...wanted, verdict]);
  return (
    <fieldset className={styles.toggles}>
      <legend className="visually-hidden">Verdicts that are shown</legend>
      {there.map(([verdict, perSecond]) => (
        <Button aria-pressed={wanted.has(verdict)} key={verdict} onClick={() => toggle(verdict)}>
          <Verdict verdict={verdict} />
          <span className="muted">{rate(perSecond)}</span>
        </Button>
      ))}
    </fieldset>
  );
}

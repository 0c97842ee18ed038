import type { Busy } from "../api/types";
import { rate } from "../parts/numbers";
import { Verdict } from "../parts/parts";
import { across, changed, link } from "../place/place";
import styles from "./BusyTable.module.css";

type Props = { busiest: Busy[]; rate: number; query: URLSearchParams };

/** In place of rows that nobody could read: who talks most, of all that passes the filters. */
export function BusyTable({ busiest, rate: all, query }: Props) {
  const highest = Math.max(1, ...busiest.map((each) => each.rate));
  const card = (id: string) => link("map", changed(across(query), { card: id }));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard
    <div className={styles.place} tabIndex={0}>
      <p className={styles.why}>
        {rate(all)} match: more than can be read. These are the busiest; a filter brings the rows back.
      </p>
      <table className={styles.table}>
        <thead>
          <tr>
            <th>Verdict</th>
            <th>Source</th>
            <th>Destination</th>
            <th>Port</th>
            <th>Rate</th>
            <th>
              <span className="visually-hidden">Share</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {busiest.map((each) => (
            <tr key={[each.source, each.destination, each.port, each.protocol, each.verdict].join("\n")}>
              <td>
                <Verdict verdict={each.verdict} />
              </td>
              <td>
                <a href={card(each.source)}>{each.source_text}</a>
              </td>
              <td>
                <a href={card(each.destination)}>{each.destination_text}</a>
              </td>
              <td className="mono">
                {each.port}/{each.protocol}
              </td>
              <td className={styles.number}>{rate(each.rate)}</td>
              <td className={styles.share}>
                <div style={{ width: `${(each.rate / highest) * 100}%` }} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

import type { Call } from "../api/types";
import { duration, rate } from "../parts/numbers";
import styles from "./panels.module.css";

export function CallTable({ calls, more }: { calls: Call[]; more: number }) {
  return (
    <>
      <table className={styles.table}>
        <thead>
          <tr>
            <th>Request</th>
            <th>Rate</th>
            <th>Mean</th>
            <th title="Dropped">✕</th>
            <th title="Failed">5xx</th>
          </tr>
        </thead>
        <tbody>
          {calls.map((call) => (
            <tr key={call.kind + call.what}>
              <td className={styles.what} title={call.what}>
                {call.what}
              </td>
              <td>{rate(call.rate)}</td>
              <td>{call.latency === undefined ? "" : duration(call.latency)}</td>
              <td className={call.dropped ? styles.bad : ""}>{call.dropped || ""}</td>
              <td className={call.failed ? styles.tried : ""}>{call.failed || ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {more > 0 && <p className="muted">{more} more</p>}
    </>
  );
}

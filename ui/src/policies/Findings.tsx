import type { Validation } from "../api/types";
import { Icon } from "../parts/Icon";
import styles from "./Findings.module.css";

export function Findings({ validation: { valid, problems, findings, objects } }: { validation: Validation }) {
  if (valid && findings.length === 0) {
    return (
      <p className={styles.fine} role="status">
        <Icon name="check" size={14} />{" "}
        {objects.length === 1 ? "It can be applied." : `All ${objects.length} can be applied.`}
      </p>
    );
  }
  return (
    <ul aria-label="What is wrong with the text" className={styles.list}>
      {problems.map((problem) => (
        <li className={styles.error} key={`${problem.line} ${problem.path} ${problem.message}`}>
          <p>
            {problem.line > 0 && <b>Line {problem.line}: </b>}
            {problem.message}
          </p>
          {problem.remedy && <p className="muted">{problem.remedy}</p>}
        </li>
      ))}
      {findings.map((finding) => (
        <li className={styles[finding.severity]} key={`${finding.code} ${finding.line} ${finding.path}`}>
          <p>
            {finding.line > 0 && <b>Line {finding.line}: </b>}
            {finding.title} <code className="muted">{finding.code}</code>
          </p>
          <p className="muted">
            {finding.what && <code>{finding.what} </code>}
            {finding.why} {finding.remedy}
          </p>
        </li>
      ))}
    </ul>
  );
}

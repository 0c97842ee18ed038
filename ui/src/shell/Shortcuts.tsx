import { useEffect, useRef } from "react";
import { Button } from "../parts/parts";
import styles from "./Shortcuts.module.css";

const KEYS: [string[], string][] = [
  [["g", "m"], "Service map"],
  [["g", "f"], "Flows"],
  [["g", "p"], "Policies"],
  [["g", "n"], "Nodes"],
  [["/"], "Write a filter, or search"],
  [["j"], "Next row (also ↓)"],
  [["k"], "Previous row (also ↑)"],
  [["Enter"], "Open what is chosen"],
  [["Esc"], "Close it"],
  [["Space"], "Pause the flows, and go on"],
  [["l"], "Back to now"],
  [["f"], "Fit the map into the window"],
  [["t"], "Light or dark"],
  [["?"], "This list"],
];

export function Shortcuts({
  open,
  onClose,
  version,
}: {
  open: boolean;
  onClose: () => void;
  version: string;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  return (
    <dialog aria-label="Keyboard shortcuts" className={styles.dialog} onClose={onClose} ref={dialog}>
      <header>
        <h2>Keyboard shortcuts</h2>
        <Button aria-label="Close" icon="close" look="quiet" onClick={onClose} />
      </header>
      <dl>
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <footer className="muted">Axoneme {version}</footer>
    </dialog>
  );
}

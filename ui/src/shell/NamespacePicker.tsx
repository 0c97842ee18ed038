import { useEffect, useId, useRef, useState } from "react";
import { Icon } from "../parts/Icon";
import styles from "./NamespacePicker.module.css";

type Props = { namespaces: string[]; chosen: string[]; onChange: (chosen: string[]) => void };

export function NamespacePicker({ namespaces, chosen, onChange }: Props) {
  const [open, setOpen] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  const menu = useId();
  useEffect(() => {
    if (!open) return;
    const outside = (event: Event) =>
      !place.current?.contains(event.target as globalThis.Node) && setOpen(false);
    const leave = (event: KeyboardEvent) => event.key === "Escape" && setOpen(false);
    window.addEventListener("pointerdown", outside);
    window.addEventListener("focusin", outside);
    window.addEventListener("keydown", leave);
    return () => {
      window.removeEventListener("pointerdown", outside);
      window.removeEventListener("focusin", outside);
      window.removeEventListener("keydown", leave);
    };
  }, [open]);
  const text = chosen.length === 0 ? "All namespaces" : chosen.join(", ");
  const all = [...new Set([...namespaces, ...chosen])].sort();
  return (
    <div className={styles.place} ref={place}>
      <button
        aria-controls={menu}
        aria-expanded={open}
        className={styles.button}
        onClick={() => setOpen(!open)}
        type="button"
      >
        <span className={styles.what}>Namespace</span>
        <span className={styles.chosen}>{text}</span>
        <Icon name="down" size={12} />
      </button>
      <div className={styles.menu} hidden={!open} id={menu}>
        <button className={styles.item} onClick={() => onChange([])} type="button">
          All namespaces
        </button>
        <fieldset>
          <legend className="visually-hidden">Namespaces</legend>
          {all.map((namespace) => (
            <label className={styles.item} key={namespace}>
              <input
                checked={chosen.includes(namespace)}
                onChange={(event) =>
                  onChange(
                    event.target.checked
                      ? [...chosen, namespace]
                      : chosen.filter((each) => each !== namespace),
                  )
                }
                type="checkbox"
              />
              {namespace}
            </label>
          ))}
        </fieldset>
      </div>
    </div>
  );
}

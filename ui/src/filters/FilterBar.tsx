import { type ClipboardEvent, type KeyboardEvent, useEffect, useId, useMemo, useRef, useState } from "react";
import { asked as asking, get } from "../api/client";
import type { Filter } from "../api/types";
import { Icon } from "../parts/Icon";
import { CopyButton } from "../parts/parts";
import { advance, fieldsFor, type Pending, valuesFor } from "./completion";
import styles from "./FilterBar.module.css";
import {
  command,
  fields as fieldsOf,
  Misunderstood,
  option,
  type Parsed,
  parseCommand,
  type Term,
} from "./language";

const NOTHING: Pending = { not: false, field: null, text: "" };

type Offer = { text: string; help: string };

type Props = {
  filters: Filter[];
  terms: Term[];
  since: string;
  until: string;
  onChange: (parsed: Partial<Parsed> & { terms: Term[] }) => void;
};

/** Filters as chips, and a field that completes the next one; takes a pasted `axo observe` as well. */
export function FilterBar({ filters, terms, since, until, onChange }: Props) {
  const [pending, setPending] = useState(NOTHING);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const [trouble, setTrouble] = useState("");
  const input = useRef<HTMLInputElement>(null);
  const list = useId();
  const fields = useMemo(() => fieldsOf(filters), [filters]);
  const values = useValues(pending, open);

  const offers: Offer[] = pending.field
    ? valuesFor(pending.text, values).map((text) => ({ text, help: "" }))
    : fieldsFor(pending.text, fields).map(({ name, filter }) => ({
        text: option(name),
        help: helpOf(name, filter),
      }));
  const chosen = offers[at];

  const add = (more: Partial<Parsed> & { terms: Term[] }) => {
    const same = (a: Term, b: Term) => a.field === b.field && a.value === b.value && a.not === b.not;
    onChange({
      ...more,
      terms: [...terms.filter((term) => !more.terms.some((each) => same(each, term))), ...more.terms],
    });
    setPending(NOTHING);
    setAt(-1);
    setTrouble("");
  };
  const write = (text: string) => {
    setTrouble("");
    setOpen(true);
    setAt(-1);
    setPending(advance({ ...pending, text }, fields));
  };
  const take = (offer: Offer) => {
    const field = pending.field;
    if (field) add({ terms: [{ field: field.name, value: offer.text, not: pending.not }] });
    else {
      setPending({
        ...pending,
        field: fields.find((each) => option(each.name) === offer.text) ?? null,
        text: "",
      });
      setAt(-1);
    }
    input.current?.focus();
  };
  const commit = () => {
    const text = pending.text.trim();
    if (pending.field && text) add({ terms: [{ field: pending.field.name, value: text, not: pending.not }] });
    else if (text) {
      try {
        add(parseCommand(`${pending.not ? "not " : ""}${text}`, filters));
      } catch (error) {
        if (!(error instanceof Misunderstood)) throw error;
        setTrouble(error.message);
      }
    }
  };
  const back = () => {
    if (pending.field) setPending({ ...pending, field: null, text: option(pending.field.name) });
    else if (pending.not) setPending(NOTHING);
    else onChange({ terms: terms.slice(0, -1) });
  };
  const press = (event: KeyboardEvent<HTMLInputElement>) => {
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      setOpen(true);
      const count = offers.length;
      if (count) setAt(key === "ArrowDown" ? (at + 1) % count : at <= 0 ? count - 1 : at - 1);
    } else if (key === "Enter") {
      if (chosen && open) take(chosen);
      else commit();
    } else if (key === "Tab" && open && pending.text && offers[Math.max(0, at)]) {
      take(offers[Math.max(0, at)] as Offer);
    } else if (key === "Escape") {
      if (open && offers.length) setOpen(false);
      else if (pending.text || pending.field) setPending(NOTHING);
      else input.current?.blur();
    } else if (key === "Backspace" && pending.text === "") back();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const paste = (event: ClipboardEvent) => {
    const text = event.clipboardData.getData("text");
    if (!/^\s*(axo\s+observe|--?\w)/.test(text)) return;
    event.preventDefault();
    try {
      add(parseCommand(text, filters));
    } catch (error) {
      if (!(error instanceof Misunderstood)) throw error;
      setTrouble(error.message);
    }
  };

  return (
    <div className={styles.bar}>
      {/* biome-ignore lint/a11y/noStaticElementInteractions lint/a11y/useKeyWithClickEvents: a larger target for the field in it */}
      <div
        className={styles.field}
        onClick={(event) => event.target === event.currentTarget && input.current?.focus()}
      >
        <Icon name="filter" size={14} />
        <ul aria-label="Filters" className={styles.chips}>
          {terms.map((term, index) => (
            <Chip
              key={`${term.not}${term.field}=${term.value}`}
              onNot={() =>
                onChange({
                  terms: terms.map((each, i) => (i === index ? { ...each, not: !each.not } : each)),
                })
              }
              onRemove={() => {
                onChange({ terms: terms.filter((_, i) => i !== index) });
                input.current?.focus();
              }}
              term={term}
            />
          ))}
        </ul>
        {pending.not && <span className={styles.pending}>not</span>}
        {pending.field && <span className={styles.pending}>{option(pending.field.name)}</span>}
        <input
          aria-activedescendant={chosen && open ? `${list}-${at}` : undefined}
          aria-autocomplete="list"
          aria-controls={list}
          aria-expanded={open && offers.length > 0}
          aria-invalid={trouble !== ""}
          aria-label="Filter flows"
          autoComplete="off"
          data-shortcut="/"
          onBlur={() => setOpen(false)}
          onChange={(event) => write(event.target.value)}
          onClick={() => setOpen(true)}
          onFocus={() => setOpen(true)}
          onKeyDown={press}
          onPaste={paste}
          placeholder={placeholder(pending, terms)}
          ref={input}
          role="combobox"
          spellCheck={false}
          type="text"
          value={pending.text}
        />
        <div
          aria-label={pending.field ? "Values" : "Filters to choose from"}
          className={styles.offers}
          hidden={!open || offers.length === 0}
          id={list}
          role="listbox"
        >
          {(open ? offers : []).map((offer, index) => (
            // biome-ignore lint/a11y/useKeyWithClickEvents: keys are the field's
            <div
              aria-selected={index === at}
              className={styles.offer}
              id={`${list}-${index}`}
              key={offer.text}
              onClick={() => take(offer)}
              onMouseDown={(event) => event.preventDefault()}
              ref={(element) => {
                if (index === at) element?.scrollIntoView({ block: "nearest" });
              }}
              role="option"
              tabIndex={-1}
            >
              <span className="mono">{offer.text}</span>
              <span className={styles.help}>{offer.help}</span>
            </div>
          ))}
        </div>
      </div>
      {trouble && (
        <p className={styles.trouble} role="alert">
          {trouble}
        </p>
      )}
      <CopyButton text={() => command(terms, since, until)}>Copy as command</CopyButton>
    </div>
  );
}

function Chip({ term, onNot, onRemove }: { term: Term; onNot: () => void; onRemove: () => void }) {
  const text = `${term.not ? "not " : ""}${option(term.field)} ${term.value}`;
  return (
    <li className={`${styles.chip} ${term.not ? styles.negated : ""}`}>
      <button
        aria-label={`${text}: ${term.not ? "show only these" : "hide these"}`}
        onClick={onNot}
        title={term.not ? "Show only these" : "Hide these"}
        type="button"
      >
        {term.not && <b>not </b>}
        <span>{option(term.field)}</span> {term.value}
      </button>
      <button aria-label={`Remove ${text}`} onClick={onRemove} type="button">
        <Icon name="close" size={12} />
      </button>
    </li>
  );
}

function placeholder(pending: Pending, terms: Term[]): string {
  if (pending.field) return pending.field.filter.help;
  return terms.length ? "" : "Filter as axo observe does: verdict DROPPED, from-pod shop/web, not port 53";
}

function helpOf(name: string, filter: Filter): string {
  if (name.startsWith("from_")) return `Of the source: ${filter.help}`;
  if (name.startsWith("to_")) return `Of the destination: ${filter.help}`;
  return filter.help;
}

/** What the field that is being written may be: all that there is, or what the server knows that begins so. */
function useValues(pending: Pending, open: boolean): string[] {
  const [values, setValues] = useState<string[]>([]);
  const { field, text } = pending;
  const fixed = field?.filter.values;
  useEffect(() => {
    setValues(fixed ?? []);
    if (!field || fixed || !open) return;
    const gone = new AbortController();
    const timer = window.setTimeout(async () => {
      const path = asking("complete", [
        ["field", field.name],
        ["text", text],
      ]);
      const found = await get<{ values: string[] }>(path, gone.signal).catch(() => ({ values: [] }));
      if (!gone.signal.aborted) setValues(found.values);
    }, 120);
    return () => {
      gone.abort();
      window.clearTimeout(timer);
    };
  }, [field, fixed, text, open]);
  return values;
}

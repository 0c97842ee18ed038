import { type FormEvent, useId, useState } from "react";
import { Problem, post } from "../api/client";
import type { Session } from "../api/types";
import { Mark } from "../parts/Icon";
import { Button, Notice } from "../parts/parts";
import styles from "./Login.module.css";

export function Login({ session, onDone }: { session: Session; onDone: () => void }) {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const field = useId();
  const enter = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      await post("login", { token: token.trim() });
      onDone();
    } catch (error) {
      setProblem(error instanceof Problem ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <main className={styles.page}>
      <div className={styles.card}>
        <div className={styles.mark}>
          <Mark size={30} />
        </div>
        <h1>Axoneme</h1>
        <p className="muted">{session.place}</p>
        {session.login === "proxy" ? (
          <Notice>
            <p>
              A proxy in front of this page signs people in, and it has not said who you are. Load the page
              again.
            </p>
          </Notice>
        ) : (
          <form onSubmit={enter}>
            <label htmlFor={field}>Token</label>
            <input
              aria-describedby={`${field}-help`}
              autoComplete="current-password"
              // biome-ignore lint/a11y/noAutofocus: there is nothing else on this page
              autoFocus
              id={field}
              onChange={(event) => setToken(event.target.value)}
              required
              type="password"
              value={token}
            />
            <p className="muted" id={`${field}-help`}>
              <code>axo ui</code> says it, or where it is kept, when it starts.
            </p>
            {problem && (
              <Notice tone="bad">
                <p>{problem}</p>
              </Notice>
            )}
            <Button disabled={busy || !token.trim()} look="primary" type="submit">
              Sign in
            </Button>
          </form>
        )}
      </div>
    </main>
  );
}

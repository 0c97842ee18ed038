import { useState } from "react";
import { post } from "../api/client";
import { Icon, Mark } from "../parts/Icon";
import { Button } from "../parts/parts";
import { across, changed, go, link, usePlace, VIEWS, type View } from "../place/place";
import { toggleTheme, useTheme } from "../theme/theme";
import { NamespacePicker } from "./NamespacePicker";
import { Shortcuts } from "./Shortcuts";
import { useKnown } from "./session";
import styles from "./TopBar.module.css";
import { useShortcuts } from "./useShortcuts";

const NAMES: Record<View, string> = { map: "Map", flows: "Flows", policies: "Policies", nodes: "Nodes" };

export function TopBar({ view, onSignedOut }: { view: View; onSignedOut: () => void }) {
  const { query } = usePlace();
  const { session, meta } = useKnown();
  const theme = useTheme();
  const [help, setHelp] = useState(false);
  const carried = across(query);
  useShortcuts({
    "g m": () => go(link("map", carried)),
    "g f": () => go(link("flows", carried)),
    "g p": () => go(link("policies", carried)),
    "g n": () => go(link("nodes", carried)),
    "/": () => document.querySelector<HTMLElement>('[data-shortcut="/"]')?.focus(),
    t: toggleTheme,
    "?": () => setHelp(true),
  });
  const leave = async () => {
    await post("logout", {});
    onSignedOut();
  };
  return (
    <header className={styles.bar}>
      <a aria-label="Axoneme, service map" className={styles.brand} href={link("map", new URLSearchParams())}>
        <Mark />
        <span>Axoneme</span>
      </a>
      <span className={styles.place} title={session.place}>
        {session.place}
      </span>
      <nav aria-label="Views" className={styles.views}>
        {VIEWS.map((each) => (
          <a aria-current={each === view ? "page" : undefined} href={link(each, carried)} key={each}>
            <Icon name={each} />
            {NAMES[each]}
          </a>
        ))}
      </nav>
      {view !== "nodes" && (
        <NamespacePicker
          chosen={query.getAll("namespace")}
          namespaces={meta.namespaces}
          onChange={(namespace) => go(link(view, changed(across(query), { namespace })))}
        />
      )}
      <div className={styles.end}>
        <Button
          aria-label="Keyboard shortcuts"
          icon="keys"
          look="quiet"
          onClick={() => setHelp(true)}
          title="Keyboard shortcuts (?)"
        />
        <Button
          aria-label={theme === "dark" ? "Light theme" : "Dark theme"}
          icon={theme === "dark" ? "sun" : "moon"}
          look="quiet"
          onClick={toggleTheme}
          title="Theme (t)"
        />
        {session.user && <span className="muted">{session.user}</span>}
        {session.login === "token" && (
          <Button aria-label="Sign out" icon="exit" look="quiet" onClick={leave} title="Sign out" />
        )}
      </div>
      <Shortcuts onClose={() => setHelp(false)} open={help} version={session.version} />
    </header>
  );
}

/** CodeMirror with what an editor of policies needs of it, and no more. */

import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { type Diagnostic, lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import { EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import type { Mark } from "./Editor";

export type Mounted = { update: (text: string, marks: Mark[]) => void; destroy: () => void };

const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--accent)" },
  { tag: [tags.string, tags.content], color: "var(--text)" },
  { tag: tags.comment, color: "var(--faint)", fontStyle: "italic" },
  { tag: [tags.punctuation, tags.separator, tags.meta], color: "var(--faint)" },
]);

const look = EditorView.theme({
  "&": { height: "100%", fontSize: "12px", color: "var(--text)", backgroundColor: "var(--surface)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--faint)", border: "none" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--sunken) 60%, transparent)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-tooltip": {
    border: "1px solid var(--line)",
    borderRadius: "6px",
    backgroundColor: "var(--raised)",
    color: "var(--text)",
    maxWidth: "520px",
  },
  ".cm-diagnostic": { fontFamily: "var(--sans)", padding: "5px 10px" },
});

export function mount(place: HTMLElement, text: string, changed: (text: string) => void): Mounted {
  const root = place.shadowRoot ?? place.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(":host { display: block; } .cm-editor { height: 100%; }");
  root.adoptedStyleSheets = [sheet];
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(),
        lintGutter(),
        history(),
        highlightActiveLine(),
        indentUnit.of("  "),
        yaml(),
        syntaxHighlighting(colours),
        look,
        // Tab leaves the editor, as it leaves every field: nobody who has only a keyboard is caught in it.
        keymap.of([...defaultKeymap, ...historyKeymap, ...lintKeymap]),
        EditorView.contentAttributes.of({ "aria-label": "Policy, YAML" }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged && !update.transactions.some((each) => each.isUserEvent("external")))
            changed(update.state.doc.toString());
        }),
      ],
    }),
  });
  let known: Mark[] = [];
  return {
    update: (next, marks) => {
      if (next !== view.state.doc.toString()) {
        view.dispatch({
          changes: { from: 0, to: view.state.doc.length, insert: next },
          userEvent: "external",
        });
      }
      if (JSON.stringify(marks) === JSON.stringify(known)) return;
      known = marks;
      view.dispatch(
        setDiagnostics(
          view.state,
          marks.map((mark) => diagnostic(view.state, mark)),
        ),
      );
    },
    destroy: () => view.destroy(),
  };
}

function diagnostic({ doc }: EditorState, { line, column, severity, message }: Mark): Diagnostic {
  const at = doc.line(Math.min(Math.max(1, line), doc.lines));
  const from = Math.min(at.to, at.from + Math.max(0, column - 1));
  return { from: line ? from : at.from, to: at.to, severity, message };
}

import type { PolicyName, Ref } from "../api/types";
import { across, changed, link } from "../place/place";

export function refText({ kind = "", namespace = "", name }: Partial<Ref> & { name: string }): string {
  return [kind, namespace, name].join("/");
}

export function parseRef(text: string): Ref | null {
  const [kind = "", namespace = "", ...rest] = text.split("/");
  return rest.length ? { kind, namespace, name: rest.join("/") } : null;
}

/** A policy's name that leads to its text, with the rule that decided. */
export function PolicyLink({ policy, query }: { policy: PolicyName; query: URLSearchParams }) {
  const to = changed(across(query), { policy: refText(policy) });
  return (
    <>
      <a href={link("policies", to)}>
        {policy.namespace ? `${policy.namespace}/` : ""}
        {policy.name}
      </a>{" "}
      <span className="muted">
        {policy.kind} {policy.rule && <code>{policy.rule}</code>}
      </span>
    </>
  );
}

import { useMemo, useState } from "react";
import { asked } from "../api/client";
import type { PolicyLine, Workload } from "../api/types";
import { useResource } from "../api/useResource";
import { Icon } from "../parts/Icon";
import { plural } from "../parts/numbers";
import { Button, Empty, ProblemNotice } from "../parts/parts";
import { across, changed, go, link, usePlace } from "../place/place";
import { Draft } from "./Draft";
import styles from "./PoliciesView.module.css";
import { parseRef, refText } from "./PolicyLink";
import { WorkloadPolicies } from "./WorkloadPolicies";

/** In the address: a policy that is written, and is none yet. */
const NEW = "new";

export function PoliciesView() {
  const { query } = usePlace();
  const namespaces = query.getAll("namespace").map((namespace): [string, string] => ["namespace", namespace]);
  const policies = useResource<PolicyLine[]>(asked("policies", namespaces), 15);
  const workloads = useResource<Workload[]>(asked("workloads", namespaces), 15);
  const [wanted, setWanted] = useState("");
  const chosen = query.get("policy") ?? "";
  const workload = query.get("workload") ?? "";
  const to = (changes: Record<string, string>) => link("policies", changed(across(query), changes));
  const fits = (text: string) => text.toLowerCase().includes(wanted.toLowerCase());
  const problem = policies.problem ?? workloads.problem;
  const found = useMemo(
    () => workloads.data?.find((each) => each.id === workload),
    [workloads.data, workload],
  );
  const line = policies.data?.find((each) => refText(each) === chosen);
  const ref = parseRef(chosen);

  return (
    <div className={styles.view}>
      <nav aria-label="Policies and workloads" className={styles.list}>
        <div className={styles.search}>
          <input
            aria-label="Search policies and workloads"
            data-shortcut="/"
            onChange={(event) => setWanted(event.target.value)}
            placeholder="Search"
            type="search"
            value={wanted}
          />
          <Button onClick={() => go(to({ policy: NEW }))}>New</Button>
        </div>
        <div className={styles.scroll}>
          {problem && <ProblemNotice problem={problem} />}
          <h2>{policies.data ? plural(policies.data.length, "policy", "policies") : "Policies"}</h2>
          <ul>
            {(policies.data ?? [])
              .filter((each) => fits(`${each.kind} ${each.namespace}/${each.name}`))
              .map((each) => (
                <li key={refText(each)}>
                  <a
                    aria-current={refText(each) === chosen ? "true" : undefined}
                    href={to({ policy: refText(each) })}
                  >
                    <span className={styles.name}>{each.name}</span>
                    <span className={styles.under}>
                      {[each.namespace || "cluster-wide", short(each.kind), each.audit && "only tried"]
                        .filter(Boolean)
                        .join(" · ")}
                    </span>
                    {each.problem ? (
                      <span className={styles.bad} title={each.problem}>
                        <Icon name="warning" size={14} />
                        <span className="visually-hidden">{each.problem}</span>
                      </span>
                    ) : (
                      <span
                        className={styles.count}
                        title={`selects ${plural(each.selects.length, "workload")}`}
                      >
                        {each.selects.length}
                      </span>
                    )}
                  </a>
                </li>
              ))}
          </ul>
          <h2>{workloads.data ? plural(workloads.data.length, "workload") : "Workloads"}</h2>
          <ul>
            {(workloads.data ?? [])
              .filter((each) => fits(`${each.kind} ${each.namespace}/${each.name}`))
              .map((each) => (
                <li key={each.id}>
                  <a
                    aria-current={each.id === workload ? "true" : undefined}
                    href={to({ workload: each.id })}
                  >
                    <span className={styles.name}>{each.name}</span>
                    <span className={styles.under}>
                      {each.namespace} · {each.kind}
                    </span>
                    <span className={styles.count}>
                      {each.closed.length === 2 ? "closed" : each.closed.join("") || "open"}
                    </span>
                  </a>
                </li>
              ))}
          </ul>
        </div>
      </nav>
      <div className={styles.main}>
        {chosen === NEW ? (
          <Draft key={NEW} line={undefined} policy={null} query={query} />
        ) : ref ? (
          <Draft key={chosen} line={line} policy={ref} query={query} />
        ) : workload ? (
          <WorkloadPolicies id={workload} key={workload} query={query} workload={found} />
        ) : (
          <Empty title="Choose a policy or a workload">
            A policy can be edited as a draft and held against the traffic that was recorded; nothing is
            applied from here.
          </Empty>
        )}
      </div>
    </div>
  );
}

const SHORT: Record<string, string> = {
  NetworkPolicy: "NetworkPolicy",
  CiliumNetworkPolicy: "CNP",
  CiliumClusterwideNetworkPolicy: "CCNP",
  AdminNetworkPolicy: "ANP",
  BaselineAdminNetworkPolicy: "BANP",
};

function short(kind: string): string {
  return SHORT[kind] ?? kind;
}

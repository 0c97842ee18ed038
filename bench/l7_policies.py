"""From a policy in the shared state to the request that it refuses: how long until it is in force.

A sandbox with one node, a server and a client. Each round writes a policy with rules that nobody had before,
and calls again and again, by one connection, until an answer shows that the new rules hold. In turn: rules
that change (the listener keeps its port), and rules for a port that had none (a new listener; the connection
is cut, so each call makes a new one). Run as root: `.venv/bin/python bench/l7_policies.py [rounds]`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "sandbox"), str(ROOT / "tests")]

from runtime import addresses, live

PODS = "\n---\n".join(
    f"""apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: {name}}}}}
spec: {{containers: [{{name: c, image: echo, ports: [{{containerPort: 80, name: http}}]}}]}}"""
    for name in ("web", "client")
)

#: Told a method, it calls with it until the status is another one than it was told; says when that was.
CALLER = """
import http.client, json, sys, time
address = sys.argv[1]
connection = http.client.HTTPConnection(address, 80, timeout=0.2)
for line in sys.stdin:
    method, former = json.loads(line)
    while True:
        try:
            connection.request(method, "/")
            answer = connection.getresponse()
            answer.read()
            if answer.status != former:
                break
        except (OSError, http.client.HTTPException):
            connection.close()
    print(time.monotonic(), flush=True)
"""


def policy(*methods: str) -> str:
    rules = [{"method": method} for method in methods]
    entry = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": rules}}
    spec = {"endpointSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"toPorts": [entry]}]}
    metadata = {"name": "a", "namespace": "default"}
    return json.dumps(
        {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}
    )


def main(rounds: int) -> None:
    with live("l7bench", PODS, nodes=1, dns=False) as made:
        axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", made.name, "exec", "-i", "client", "--")
        address = addresses(made.pod("web"))[0]
        caller = subprocess.Popen(
            [*axo, sys.executable, "-u", "-c", CALLER, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert caller.stdin and caller.stdout

        def until_other(method: str, former: int) -> float:
            assert caller.stdin and caller.stdout
            caller.stdin.write(json.dumps([method, former]) + "\n")
            caller.stdin.flush()
            return float(caller.stdout.readline())

        changed: list[float] = []
        added: list[float] = []
        made.apply(policy("FIRST"))
        until_other("GET", 200)
        for index in range(rounds):
            # GET was refused, and is allowed by rules that are new.
            began = time.monotonic()
            made.apply(policy("GET", f"M{index}"))
            changed.append(until_other("GET", 403) - began)
            made.apply(policy("OTHER"))
            until_other("GET", 200)
        made.delete("CiliumNetworkPolicy", "a")
        until_other("GET", 403)
        # Another listener that stays, so that Envoy runs: of a policy for the client.
        made.apply(
            policy("STAYS").replace('"app": "web"', '"app": "client"').replace('"name": "a"', '"name": "b"')
        )
        time.sleep(2)
        for index in range(rounds):
            began = time.monotonic()
            made.apply(policy(f"N{index}"))
            added.append(until_other("GET", 200) - began)
            made.delete("CiliumNetworkPolicy", "a")
            until_other("GET", 403)
        caller.stdin.close()
        caller.wait(20)
    for what, seconds in (("rules that change", changed), ("a new listener", added)):
        found = sorted(1000 * each for each in seconds)
        last = found[min(len(found) - 1, int(0.99 * len(found)))]
        print(f"{what}: p50 {statistics.median(found):.0f} ms, p99 {last:.0f} ms, of {len(found)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)

"""A real agent with small tables: they grow, and what they cannot hold is refused with the numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from one_node import Node, node
from test_audit import POD, table

from axoneme.datapath.bpf import map_info

KEY = "objects/NetworkPolicy/default/large"


def policy(ports: int) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "large", "namespace": "default"},
        "spec": {
            "podSelector": {},
            "ingress": [
                {
                    "from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
                    "ports": [{"port": 2000 + 2 * n} for n in range(ports)],
                }
            ],
        },
    }


def held(agent: Node) -> tuple[int, int]:
    """Entries, and room for them."""
    with table(agent, "policies") as policies:
        return len(policies.read_all()[0]), map_info(policies.fd).max_entries


def entries(agent: Node) -> int:
    return int(agent.client.call("status")["policy_entries"])


def asked(agent: Node, policy: dict[str, Any]) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = agent.client.call("policy.fits", {"objects": {KEY: policy}})
    return answer


def apply(agent: Node, policy: dict[str, Any]) -> tuple[int, str]:
    """The exit code of `axo apply` on this machine, and what it says to that."""
    done = subprocess.run(
        [sys.executable, "-m", "axoneme.cli", "apply", "--config", agent.folder / "agent.yaml", "-f", "-"],
        input=json.dumps(policy),
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_tables_grow_to_their_limit_and_no_further() -> None:
    with node(tables={"policies": 32, "growth": 4}) as agent:
        agent.start()
        agent.write({"objects/Pod/default/one": POD})
        agent.attach("one", agent.namespaces.add("one"))
        before = entries(agent)
        agent.write({KEY: policy(50)})
        while entries(agent) == before:
            time.sleep(0.05)
        grown, room = held(agent)
        assert (grown, room) == (entries(agent), 64)

        (need,) = [each for each in asked(agent, policy(200)) if each["problem"]]
        assert (need["table"], need["needed"], need["limit"]) == ("policies", grown + 150, 128)
        assert not any(each["problem"] for each in asked(agent, policy(60)))
        assert apply(agent, policy(200)) == (
            1,
            "error: nothing was done: NetworkPolicy default/large cannot be put in force\n"
            f"  node1: {need['problem']}\n",
        )
        assert held(agent) == (grown, 64)

        agent.write({KEY: policy(200)})
        while KEY not in (problems := agent.client.call("status")["problems"]):
            time.sleep(0.05)
        assert problems[KEY].startswith(
            "refused, what was before stays in force: policies: 128 entries at most"
        )
        assert held(agent) == (grown, 64)

        agent.kill()
        agent.start()
        assert KEY in agent.client.call("status")["problems"]
        assert held(agent) == (grown, 64), "what was before is in force"
        agent.write({KEY: policy(10)})
        while KEY in agent.client.call("status")["problems"]:
            time.sleep(0.05)
        assert held(agent)[0] == entries(agent) == grown - 40

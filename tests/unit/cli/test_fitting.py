"""`axo apply` asks the nodes whether they have room, and writes nothing when one has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .conftest import Answer, Axo, Params, Sandbox, serving

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s}
spec: {podSelector: {}}
---
"""
GROUP = """
apiVersion: cilium.io/v2
kind: CiliumCIDRGroup
metadata: {name: partners}
spec: {externalCIDRs: [192.0.2.0/24]}
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {containers: [{name: main, image: i}]}
"""
ROOMY = [{"table": "policies", "needed": 3, "limit": 8, "problem": ""}]
FULL = [{"table": "policies", "needed": 9, "limit": 8, "problem": "policies: 8 at most, 9 needed; raise it"}]


@contextmanager
def agents(sandbox: Sandbox, **answers: object) -> Iterator[list[dict[str, Any]]]:
    """Agents of these nodes, and what they are asked."""
    asked: list[dict[str, Any]] = []

    def says(answer: object) -> Answer:
        def fits(params: Params) -> object:
            asked.append(params.objects)
            return answer

        return fits

    with ExitStack() as stack:
        for node, answer in answers.items():
            stack.enter_context(
                serving(sandbox.layout.node(node).agent_socket, {"policy.fits": says(answer)})
            )
        yield asked


def test_one_node_without_room_and_nothing_is_written(axo: Axo, sandbox: Sandbox) -> None:
    with agents(sandbox, node1=ROOMY, node2=FULL):
        done = axo("apply", "-f", "-", stdin=POLICY % "big" + GROUP + POD)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "error: nothing was done: NetworkPolicy default/big, CiliumCIDRGroup partners "
        "cannot be put in force\n"
        "  node2: policies: 8 at most, 9 needed; raise it\n"
    )
    assert sandbox.get("Pod", "one") is None and sandbox.get("NetworkPolicy", "big") is None


def test_where_there_is_room_it_is_written(axo: Axo, sandbox: Sandbox) -> None:
    with agents(sandbox, node1=ROOMY, node2=ROOMY) as asked:
        done = axo("apply", "-f", "-", stdin=POLICY % "small" + POD)
        assert [list(objects) for objects in asked] == [["objects/NetworkPolicy/default/small"]] * 2
        assert (done.code, done.err) == (0, "")
        asked.clear()
        axo("apply", "-f", "-", stdin=POLICY % "small")
        assert not asked, "it was there already"
    assert sandbox.need("NetworkPolicy", "small")


def test_many_objects_are_named_in_few_words(axo: Axo, sandbox: Sandbox) -> None:
    with agents(sandbox, node1=FULL):
        done = axo("apply", "-f", "-", stdin="".join(POLICY % name for name in "abcde"))
    assert (
        "NetworkPolicy default/a, NetworkPolicy default/b, NetworkPolicy default/c and 2 more cannot"
        in done.err
    )


def test_an_agent_that_cannot_be_asked_holds_nothing_up(axo: Axo, sandbox: Sandbox) -> None:
    with agents(sandbox, node1=ROOMY):
        done = axo("apply", "-f", "-", stdin=POLICY % "one")
    assert (done.code, done.err) == (0, "")
    done = axo("apply", "-f", "-", stdin=POLICY % "two")
    assert done.code == 0
    assert done.err.startswith("whether it fits the nodes' tables is not known: the agent of node1: ")


def test_nor_does_one_of_an_older_release(axo: Axo, sandbox: Sandbox) -> None:
    with serving(sandbox.layout.node("node1").agent_socket):
        done = axo("apply", "-f", "-", stdin=POLICY % "one")
    assert done.code == 0 and "policy.fits" in done.err


def test_a_dry_run_says_so_too(axo: Axo, sandbox: Sandbox) -> None:
    with agents(sandbox, node1=FULL):
        assert axo("apply", "--dry-run", "-f", "-", stdin=POLICY % "large").code == 1

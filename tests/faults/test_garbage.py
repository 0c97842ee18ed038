"""What cannot be read, in the shared state or on the node's disk, changes nothing else, and is named."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from alone import POLICY, POLICY_KEY, Alone, alone

from axoneme.sources.sqlite import SqliteStore

TRUNCATED = json.dumps(POLICY).encode()[:-40]
GARBAGE = {
    POLICY_KEY: TRUNCATED,
    "objects/NetworkPolicy/default/no-json": b"\xff\xfe{",
    "objects/NetworkPolicy/default/a-list": b"[1, 2]",
    "objects/NetworkPolicy/default/a-number": b"7",
    "objects/NetworkPolicy/default/empty": b"",
    "objects/CiliumNetworkPolicy/default/wrong-types": json.dumps(
        {**POLICY, "metadata": {"name": 7}, "spec": {"endpointSelector": [], "ingress": "all"}}
    ).encode(),
    "objects/CiliumNetworkPolicy/no-name": json.dumps(POLICY).encode(),
    "objects/CiliumCIDRGroup/_/group": b'{"spec": {"externalCIDRs": ["300.0.0.0/8"]}}',
    "objects/Service/default/service": b'{"spec": {"selector": 1}}',
    "objects/Namespace/_/default": b'{"metadata": {"labels": "none"}}',
    "objects/Pod/default/a": b'{"metadata": []}',
    "state/nodes/node9": b'{"addresses": []}',
    "state/nodes/node8": b'{"name": "node8", "pod_cidrs": ["x"]}',
    "state/identities/by-number/many": b'{"labels": []}',
    "state/endpoints/node9/1": b'{"id": "one"}',
    "state/endpoints/node9/2": b"null",
}


#: Namespaces stay until the end of the session, so each has a name of its own.
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def one() -> Iterator[Alone]:
    with alone() as made:
        yield made


def write(one: Alone, values: dict[str, bytes | None]) -> None:
    async def run() -> None:
        store = SqliteStore(one.node.store)
        try:
            for key, value in values.items():
                if value is None:
                    await store.delete(key)
                else:
                    await store.put(key, value)
        finally:
            await store.close()

    asyncio.run(run())


def test_garbage_in_the_shared_state(one: Alone, checker: Path) -> None:
    before = one.table("policies")
    with one.traffic(checker, "unreadable objects in the shared state") as report:
        write(one, dict(GARBAGE))
        named = set(GARBAGE) - {"objects/Pod/default/a"}  # of that its pod keeps what it has
        one.node.wait(lambda: named <= set(one.problems()), "every object is named", one.problems)
        assert one.table("policies") == before, "what was in force stays in force"
    assert report.clean(), str(report)
    assert all(one.problems().values())


def test_an_agent_that_starts_among_garbage_keeps_what_the_kernel_has(one: Alone, checker: Path) -> None:
    """What the policy said before it could not be read any more is known to the next agent too."""
    with one.traffic(checker, "agent started among unreadable objects") as report:
        one.node.kill()
        one.node.start()
        assert POLICY_KEY in one.problems()
    assert report.clean(), str(report)


def test_mended_objects_are_no_problem_any_more(one: Alone, checker: Path) -> None:
    write(one, dict.fromkeys(GARBAGE) | {POLICY_KEY: json.dumps(POLICY).encode()})
    one.node.wait(lambda: one.problems() == {}, "no problems", one.problems)
    with one.traffic(checker, "unreadable objects mended") as report:
        pass
    assert report.clean(), str(report)


@pytest.mark.parametrize(
    "content",
    [
        b'{"container_id": "b"',
        *(pytest.param(each, marks=pytest.mark.slow) for each in (b"", b"\0\0", b'{"mac": 7}')),
    ],
)
def test_a_record_that_cannot_be_read(one: Alone, checker: Path, content: bytes) -> None:
    """Its pod is cut off, since nobody knows who it is; the others are not concerned."""
    doomed = one.plug(f"doomed{next(_NUMBERS)}", "member")
    path = one.record_of(doomed.name)
    one.node.kill()
    path.write_bytes(content)
    one.node.start()
    del one.places[doomed.name]
    one.node.wait(one.problems, "a problem", one.status)
    problems = one.problems()
    assert list(problems) == [f"endpoints/{path.name}"]
    assert "its pod is cut off" in problems[f"endpoints/{path.name}"]
    assert path.with_suffix(".unreadable").read_bytes() == content
    assert path.stem not in one.links()
    assert one.disagreements() == []
    with one.traffic(checker, "a record that cannot be read") as report:
        pass
    assert report.clean(), str(report)
    again = one.attach(doomed.name, doomed.namespace)
    assert again
    one.node.detach(doomed.name)

"""What the agent makes of the shared state, sound and unsound; and of questions."""

from __future__ import annotations

from pathlib import Path

import pytest

from axoneme.agent.api import Readiness
from axoneme.agent.config import load
from axoneme.agent.questions import Peer, Question
from axoneme.model.labels import Labels
from axoneme.model.policy import Direction
from axoneme.rpc import UNAVAILABLE, RpcError
from axoneme.sources.config import ConfigError
from axoneme.sources.store import Change

from .conftest import World
from .test_agent_pods import CLOSED

STORED = "node: node1\ndirectory: /x\nstore: {path: s}\n"


#: The closed policy, with a rule for a port that nobody asks for.
OPEN = {
    **CLOSED,
    "metadata": {**CLOSED["metadata"], "name": "open"},
    "spec": {**CLOSED["spec"], "ingress": [{"ports": [{"port": 443}]}]},
}


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"7", b"\xff", b'{"spec": 1}', b'{"metadata": 1}'])
@pytest.mark.parametrize(
    "key",
    [
        "objects/NetworkPolicy/default/closed",
        "objects/CiliumCIDRGroup/_/x",
        "objects/Service/default/x",
        "objects/Namespace/_/default",
        "objects/Pod/default/web",
        "state/nodes/x",
        "state/endpoints/x/1",
        "state/identities/by-number/300",
        "state/identities/by-number/none",
    ],
)
async def test_what_makes_no_sense_changes_nothing(world: World, key: str, value: bytes) -> None:
    await world.pod("web", app="web")
    await world.attach("web")
    await world.tell("NetworkPolicy", "closed", CLOSED)
    before = world.traces()
    await world.listener.take([Change(key, value, 9)])
    world.control.settle()
    assert world.traces() == before


async def test_a_policy_that_becomes_unsound_stays_in_force_and_is_told_of(world: World) -> None:
    await world.pod("web", app="web")
    identity = (await world.attach("web")).identity
    await world.tell("NetworkPolicy", "closed", CLOSED)
    await world.tell("NetworkPolicy", "closed", {**CLOSED, "spec": {"podSelektor": {}}})
    assert "podSelektor" in world.listener.problems["objects/NetworkPolicy/default/closed"]
    assert world.control.engine.enforced(identity, Direction.INGRESS)
    await world.tell("NetworkPolicy", "closed", None)
    assert not world.listener.problems
    assert not world.control.engine.enforced(identity, Direction.INGRESS)


async def test_questions_are_answered_as_packets_are(world: World) -> None:
    await world.pod("web", app="web")
    await world.pod("client", app="client")
    await world.attach("web")
    client = (await world.attach("client")).identity
    question = Question("ingress", "default/web", Peer(identity=client), "TCP", 80)
    assert (await world.questions.evaluate(question)).allowed
    await world.tell("NetworkPolicy", "closed", CLOSED)
    answer = await world.questions.evaluate(question)
    assert answer.verdict == "denied by default"
    assert [rule.name for rule in answer.rules] == ["closed"]
    assert any("closed" in step for step in answer.steps)
    assert not answer.nearest, "it has no rule that could be near"
    await world.tell("NetworkPolicy", "open", OPEN)
    answer = await world.questions.evaluate(question)
    assert [(miss.rule.name, [lack.condition for lack in miss.unmet]) for miss in answer.nearest] == [
        ("open", ["port"])
    ]
    assert answer.nearest[0].text == (
        "NetworkPolicy default/open spec.ingress[0] would allow it but for the port "
        "(it allows 443/TCP, this is 80/TCP)"
    )
    by_address = Question("ingress", "default/web", Peer(address="10.244.1.3"), "TCP", 80)
    assert (await world.questions.evaluate(by_address)).peer.identity == client
    for wrong, message in (
        (Question("ingress", "default/none", Peer(identity=2)), "no pod default/none"),
        (Question("ingress", "default/web", Peer(), "TCP", 80), "an address or a DNS name"),
        (Question("ingress", "default/web", Peer(identity=2), "TCPP", 80), "TCPP"),
        (Question("ingress", "default/web", Peer(identity=2), "TCP", 99999), "99999"),
        (Question("ingress", "default/web", Peer(address="10.0.0"), "TCP", 1), "10.0.0"),
    ):
        with pytest.raises(RpcError, match=message):
            await world.questions.evaluate(wrong)


async def test_an_identity_is_forgotten_when_nobody_uses_it(world: World) -> None:
    control = world.control
    labels = Labels.parse(["k8s:app=x"])
    control.identity_known(300, labels)
    control.identity_gone(300)
    control.identity_known(300, labels)
    control.settle()
    assert control.engine.identity(300) is not None, "it came back before it was taken away"
    control.identity_gone(300)
    control.settle()
    assert control.engine.identity(300) is None


async def test_the_journal_says_who_denies_by_default(world: World) -> None:
    await world.pod("web", app="web")
    identity = (await world.attach("web")).identity
    await world.tell("NetworkPolicy", "closed", CLOSED)
    number = world.journal.defaults[identity, Direction.INGRESS]
    assert [ref.name for ref in world.journal.meaning[number]] == ["closed"]
    await world.tell("NetworkPolicy", "closed", None)
    assert world.journal.defaults[identity, Direction.INGRESS] == 0


async def test_an_attach_waits_but_not_for_ever() -> None:
    readiness = Readiness()
    readiness.reached("the shared state")
    with pytest.raises(RpcError, match="waited 0 s for the shared state") as failure:
        await readiness.wait(0)
    assert failure.value.code == UNAVAILABLE
    readiness.reached("")
    await readiness.wait(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "agent.yaml"),
        ("node: node1", "directory"),
        ("node: node1\ndirectory: /x\nstore: {}\n", "store.path is missing"),
        ("node: node1\ndirectory: /x\nstore: {kind: etcd}\n", "store.endpoints is missing"),
        (f"{STORED}routnig: native\n", "routnig"),
        (f"{STORED}routing: nativ\n", "routing"),
        (
            f"{STORED}cluster_pool: [{{cidr: 10.0.0.1/8, node_prefix_length: 24}}]\n",
            "10.0.0.1/8",
        ),
    ],
)
def test_a_wrong_configuration_is_refused_by_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as failure:
        load(path)
    assert str(path) in str(failure.value)

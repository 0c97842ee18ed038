"""What the agent makes of DNS names and of other nodes' labels, up to the tables of a played kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from axoneme.agent import outside
from axoneme.agent.control import Control
from axoneme.agent.questions import Peer, Question
from axoneme.datapath.bpf import BpfError
from axoneme.identity.arrays import read_arrays
from axoneme.identity.prefixes import prefix_text
from axoneme.model.state import EndpointState, NodeState, encode, endpoint_key, node_key
from axoneme.proxy.names import JOURNAL, Answer, Learn
from axoneme.rpc import RpcError
from axoneme.sources.store import Change

from .conftest import World

WORLD_IPV4 = 9
CLIENT = "default/web"


def names_policy(*items: dict[str, str], **more: object) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "names", "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "web"}},
            "egress": [{"toFQDNs": list(items), "toPorts": [{"ports": [{"port": "443"}]}]}],
            **more,
        },
    }


def ranges_policy(*cidrs: str) -> dict[str, Any]:
    spec = names_policy()
    spec["spec"]["egress"] = [{"toCIDR": list(cidrs)}]
    spec["metadata"]["name"] = "ranges"
    return spec


A_IO, ALL_IO = {"matchName": "a.io"}, {"matchPattern": "*.io"}


async def learn(world: World, name: str, *addresses: str, ttl: int = 300, client: str = "") -> None:
    answer = Answer(int(world.now), client or world.client, name, dict.fromkeys(addresses, ttl))
    with open(world.folder / JOURNAL, "ab") as journal:
        journal.write(msgspec.json.encode(answer) + b"\n")
    await world.names.learn(Learn((answer,)))


def kernel(world: World) -> dict[str, int]:
    """Addresses and prefixes with numbers of this node."""
    table = read_arrays(*world.plane.addresses.read_all())
    return {prefix_text(p): r.identity for p, r in table.items() if r.identity >= 1 << 24}


def labels(world: World, number: int) -> set[str]:
    identity = world.control.engine.identity(number)
    assert identity is not None
    assert world.journal.known[number] == tuple(identity.labels.texts()), "flows could not say who it is"
    return set(identity.labels.texts())


async def asked(world: World, address: str) -> str:
    question = Question("egress", CLIENT, Peer(address=address), "TCP", 443)
    return (await world.questions.evaluate(question)).verdict


@pytest.fixture
async def named(world: World) -> World:
    """With a pod that may call a.io, at port 443."""
    await world.pod("web", app="web")
    world.client = (await world.attach("web")).addresses[0].address
    await world.tell("CiliumNetworkPolicy", "names", names_policy(A_IO))
    return world


async def test_an_address_gets_the_identity_of_its_names_selectors(named: World) -> None:
    assert await asked(named, "203.0.113.1") == "denied by default"
    await learn(named, "A.io.", "203.0.113.1", "2001:db8::1")
    assert await asked(named, "203.0.113.1") == "allowed"
    found = kernel(named)
    assert labels(named, found["203.0.113.1/32"]) == {"fqdn:a.io", "reserved:world", "reserved:world-ipv4"}
    assert labels(named, found["2001:db8::1/128"]) == {"fqdn:a.io", "reserved:world", "reserved:world-ipv6"}
    assert await asked(named, "203.0.113.2") == "denied by default"


async def test_five_hundred_addresses_are_one_identity_and_no_policy_entry_more(named: World) -> None:
    entries, numbers = dict(named.plane.policies.entries), named.control.counts.identities
    writes = dict(named.control.writes)
    addresses = [f"198.51.100.{n}" for n in range(250)] + [f"203.0.113.{n}" for n in range(250)]
    await learn(named, "a.io", *addresses)
    assert set(kernel(named)) == {f"{address}/32" for address in addresses}
    assert len(set(kernel(named).values())) == 1
    assert (named.plane.policies.entries, named.control.counts.identities) == (entries, numbers)
    # The first answer already costs no more than its addresses.
    assert named.control.writes == {"policies": writes["policies"], "addresses": writes["addresses"] + 500}


async def test_two_names_on_one_address(named: World) -> None:
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO, {"matchName": "b.net"}))
    await learn(named, "a.io", "203.0.113.1", "203.0.113.2", ttl=100)
    await learn(named, "b.net", "203.0.113.1", ttl=300)
    found = kernel(named)
    assert {"fqdn:a.io", "fqdn:b.net"} <= labels(named, found["203.0.113.1/32"])
    assert "fqdn:b.net" not in labels(named, found["203.0.113.2/32"])
    named.now += 200
    await named.names.sweep()
    found = kernel(named)
    assert set(found) == {"203.0.113.1/32"}
    assert "fqdn:a.io" not in labels(named, found["203.0.113.1/32"])


async def test_names_that_no_policy_means_have_nothing_in_the_kernel(named: World) -> None:
    await learn(named, "other.io", "203.0.113.1")
    assert kernel(named) == {}


async def test_an_answer_from_before_the_policy_counts(named: World) -> None:
    await learn(named, "b.io", "203.0.113.1")
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO, ALL_IO))
    assert "fqdn:*.io" in labels(named, kernel(named)["203.0.113.1/32"])
    assert await asked(named, "203.0.113.1") == "allowed"
    await named.tell("CiliumNetworkPolicy", "names", None)
    assert kernel(named) == {}
    assert await asked(named, "203.0.113.1") == "allowed", "no policy selects the pod any more"


@pytest.mark.parametrize("first", ["name", "range"])
async def test_a_range_around_an_address_selects_it_too(named: World, first: str) -> None:
    """As do wider ones, and exceptions leave it out: the identity stands for the longest range."""
    policy = ranges_policy("203.0.113.0/24", "203.0.0.0/16")
    policy["spec"]["egress"].append({"toCIDRSet": [{"cidr": "203.0.0.0/8", "except": ["203.0.113.0/24"]}]})
    if first == "name":
        await learn(named, "a.io", "203.0.113.1")
        await named.tell("CiliumNetworkPolicy", "ranges", policy)
    else:
        await named.tell("CiliumNetworkPolicy", "ranges", policy)
        await learn(named, "a.io", "203.0.113.1")
    number = kernel(named)["203.0.113.1/32"]
    assert labels(named, number) >= {"fqdn:a.io", "cidr:203.0.113.0/24"}
    question = Question("egress", CLIENT, Peer(address="203.0.113.1"), "UDP", 9)
    answer = await named.questions.evaluate(question)
    assert {rule.rule for rule in answer.rules} == {"spec.egress[0]"} and answer.allowed
    await named.tell("CiliumNetworkPolicy", "ranges", None)
    assert kernel(named).keys() == {"203.0.113.1/32"}
    assert "cidr:203.0.113.0/24" not in labels(named, kernel(named)["203.0.113.1/32"])
    assert named.control.engine.identity(number) is None
    assert await asked(named, "203.0.113.1") == "allowed"


async def test_what_live_connections_use_stays_and_then_goes(named: World) -> None:
    await learn(named, "a.io", "203.0.113.1", "203.0.113.2", ttl=0)
    address = next(iter(named.cache.having(lambda name: name == "a.io")))
    named.used = frozenset({address})
    named.now += 61
    await named.names.sweep()
    assert len(kernel(named)) == 1
    named.used = frozenset()
    named.now += 61
    await named.names.sweep()
    assert kernel(named) == {}


async def test_a_floor_holds_for_short_answers(named: World) -> None:
    await learn(named, "a.io", "203.0.113.1", ttl=0)
    named.now += 59
    await named.names.sweep()
    assert len(kernel(named)) == 1


async def test_two_thousand_changing_addresses_of_one_name(named: World) -> None:
    for n in range(0, 2000, 8):
        await learn(named, "a.io", *(f"198.18.{i // 256}.{i % 256}" for i in range(n, n + 8)))
        named.now += 1
    await named.names.sweep()
    # Those of the last 300 s, by their TTL.
    assert 250 * 8 >= len(kernel(named)) >= 1000
    assert len(set(kernel(named).values())) == 1
    assert max(kernel(named)) and "198.18.7.207/32" in kernel(named)


async def test_pods_and_nodes_are_never_who_a_name_says(named: World) -> None:
    node = NodeState("node2", ["172.31.0.2"], ["172.31.0.2"], ["10.244.2.0/24"])
    await learn(named, "a.io", "172.31.0.2", "10.244.2.7", "10.244.2.8", "172.31.0.1", "203.0.113.1")
    assert set(kernel(named)) == {"172.31.0.2/32", "10.244.2.7/32", "10.244.2.8/32", "203.0.113.1/32"}
    await named.listener.take([Change(node_key("node2"), encode(node), 1)])
    named.control.settle()
    assert set(kernel(named)) == {"203.0.113.1/32"}, "it is a node's, and where that has its pods"
    await learn(named, "a.io", "10.244.2.9", "127.0.0.1", "0.0.0.0", "::", "::1", "224.0.0.1", "ff02::1")
    assert set(kernel(named)) == {"203.0.113.1/32"}
    pod = EndpointState(7, "node2", 300, ["203.0.113.1"], "default", "p", labels=["k8s:app=p"])
    await named.listener.take([Change(endpoint_key("node2", 7), encode(pod), 2)])
    named.control.settle()
    assert kernel(named) == {}, "an address that becomes a pod's"
    assert await asked(named, "203.0.113.1") == "denied by default"
    await named.listener.take([Change(endpoint_key("node2", 7), None, 3)])
    named.control.settle()
    assert set(kernel(named)) == {"203.0.113.1/32"}


async def test_a_restart_forgets_nothing_and_writes_nothing(named: World) -> None:
    await named.tell("CiliumNetworkPolicy", "ranges", ranges_policy("203.0.113.0/24"))
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO, ALL_IO))
    await learn(named, "a.io", "203.0.113.1", "198.51.100.1")
    await learn(named, "b.io", "198.51.100.2")
    before = (dict(named.plane.addresses.entries), dict(named.plane.policies.entries))
    assert await named.start_again() == 0
    assert (named.plane.addresses.entries, named.plane.policies.entries) == before
    named.now += 400
    await named.names.sweep()
    assert set(kernel(named)) == {"203.0.113.0/24"}


async def test_a_restart_does_not_take_up_what_was_given_up(named: World) -> None:
    """The proxy's file has it for longer."""
    await learn(named, "a.io", "203.0.113.1", ttl=100)
    named.now += 101
    await learn(named, "a.io", "203.0.113.2", ttl=100)
    await named.names.sweep()
    assert set(kernel(named)) == {"203.0.113.2/32"}
    assert await named.start_again() == 0
    assert set(kernel(named)) == {"203.0.113.2/32"}


async def test_an_agent_killed_between_the_kernel_and_its_answer(named: World) -> None:
    """The proxy has it in its file, hears nothing, and tells the next agent again."""
    await learn(named, "a.io", "203.0.113.1")
    before = kernel(named)
    assert await named.start_again() == 0
    await learn(named, "a.io", "203.0.113.1")
    assert kernel(named) == before


async def test_what_the_proxy_has_forgotten_stays_while_it_is_used(named: World) -> None:
    """Its file is short: connections may be older."""
    await learn(named, "a.io", "203.0.113.1", "203.0.113.2")
    (named.folder / JOURNAL).unlink()
    assert await named.start_again() == 0
    named.used = frozenset(a for a in named.cache.addresses if a.endswith(b"\1"))
    named.now += 61
    await named.names.sweep()
    assert set(kernel(named)) == {"203.0.113.1/32"}
    assert await asked(named, "203.0.113.1") == "allowed"


async def test_a_starting_agent_says_so(named: World) -> None:
    named.names._restored = False
    with pytest.raises(RpcError, match="starting"):
        await learn(named, "a.io", "203.0.113.1")


async def test_without_room_in_the_kernel_the_proxy_is_told(named: World) -> None:
    named.plane.addresses.room = len(named.plane.addresses) + 1
    await learn(named, "a.io", "203.0.113.1")
    with pytest.raises(RpcError, match="DNS names are not put in force: addresses: "):
        await learn(named, "a.io", "203.0.113.2", "203.0.113.3")
    assert set(kernel(named)) == {"203.0.113.1/32"}
    await named.tell("CiliumNetworkPolicy", "ranges", names_policy({"matchName": "b.io"}))
    assert named.control.refused == {}, "others are not held up"
    named.plane.addresses.room += 10
    named.control.settle()
    assert len(kernel(named)) == 3 and named.control.outside.problem == ""


async def test_nothing_is_said_to_be_there_while_the_kernel_lacks_something(
    named: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(keys: Any, values: Any) -> None:
        raise BpfError(12, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(named.plane.addresses, "write", refuse)
        with pytest.raises(RpcError, match="no memory"):
            await learn(named, "a.io", "203.0.113.1")
    with pytest.raises(RpcError, match="about to be compared and mended"):
        await learn(named, "a.io", "203.0.113.1")
    assert kernel(named) == {}
    named.control.reconcile()
    await learn(named, "a.io", "203.0.113.1")
    assert kernel(named).keys() == {"203.0.113.1/32"}


async def test_who_tells_of_the_same_answer_waits_for_the_kernel_too(
    named: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = True
    monkeypatch.setattr(Control, "holds", property(lambda _: held))
    tasks = [asyncio.create_task(learn(named, "a.io", "203.0.113.1", client=c)) for c in ("", "192.0.2.9")]
    done, _ = await asyncio.wait(tasks, timeout=0.05)
    assert not done and kernel(named) == {}
    held = False
    await asyncio.gather(*tasks)
    assert kernel(named).keys() == {"203.0.113.1/32"}


async def test_answers_cannot_make_more_identities_than_policies_have_room_for(
    named: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each combination of names at an address is one: six names would make 63."""
    monkeypatch.setattr(outside, "MOST_UNFORESEEN", 8)
    names = [f"{letter}.net" for letter in "abcdef"]
    await named.tell("CiliumNetworkPolicy", "names", names_policy(*({"matchName": name} for name in names)))
    entries, foreseen = len(named.plane.policies), 2 * len(names)
    for number in range(1, 64):
        for place, name in enumerate(names):
            if number >> place & 1:
                with suppress(RpcError):
                    await learn(named, name, f"203.0.113.{number}", ttl=100 if number < 32 else 300)
    assert len(named.plane.policies) <= entries + 8 * 3
    assert len(set(kernel(named).values())) <= foreseen + 8
    assert "more than 8 combinations" in named.control.outside.problem
    more = names_policy(A_IO)
    more["metadata"]["name"] = "more"
    await named.tell("CiliumNetworkPolicy", "more", more)
    assert not named.control.broken and not named.control.refused, "others are not held up"
    named.now += 400
    await named.names.sweep()
    assert named.control.outside.problem == ""
    with suppress(RpcError):
        await learn(named, "a.net", "203.0.113.63")
    await learn(named, "f.net", "203.0.113.63")
    assert await asked(named, "203.0.113.63") == "allowed"


async def test_a_pod_range_of_two_nodes_is_one_until_both_have_left_it(named: World) -> None:
    for name in ("node2", "node3"):
        node = NodeState(name, ["172.31.0.2"], ["172.31.0.2"], ["10.244.2.0/24"])
        await named.listener.take([Change(node_key(name), encode(node), 1)])
    await learn(named, "a.io", "10.244.2.7")
    for name, there in (("node2", set()), ("node3", {"10.244.2.7/32"})):
        await named.listener.take([Change(node_key(name), None, 2)])
        named.control.settle()
        assert set(kernel(named)) == there


async def test_the_proxys_plan_is_made_anew_where_something_has_changed(named: World) -> None:
    plan = named.names.plan()
    await learn(named, "a.io", "203.0.113.1")
    assert named.names.plan() is plan
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO, ALL_IO))
    assert len(named.names.plan().selectors) == 2
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO))
    assert named.names.plan().selectors == plan.selectors


async def test_the_proxys_plan_has_what_it_needs_while_the_agent_is_away(named: World) -> None:
    await named.tell("CiliumNetworkPolicy", "ranges", ranges_policy("203.0.113.0/24"))
    await named.tell("CiliumNetworkPolicy", "names", names_policy(A_IO, ALL_IO))
    await learn(named, "b.io", "203.0.113.1")
    plan = named.names.plan()
    assert [match.text for match in plan.selectors] == ["*.io", "a.io"] and plan.worlds == (9, 10)
    found = {(each.around, each.selectors): each.identity for each in plan.identities}
    around = kernel(named)["203.0.113.0/24"]
    # Of each selector for itself, in both families; and of the one inside the range.
    assert found.keys() == {(w, s) for w in (9, 10) for s in ((0,), (0, 1))} | {(around, (0,))}
    assert found[around, (0,)] == kernel(named)["203.0.113.1/32"]
    for number in found.values():
        assert named.control.engine.identity(number) is not None


async def test_what_is_listed(named: World) -> None:
    await learn(named, "a.io", "203.0.113.1", ttl=100)
    await learn(named, "a.io", "203.0.113.1", ttl=200, client="192.0.2.9")
    (line,) = named.names.lines()
    assert (line.name, line.address, line.ttl) == ("a.io", "203.0.113.1", 200)
    assert (line.endpoints, line.selectors) == (["192.0.2.9", "default/web"], ["a.io"])
    assert line.identity == kernel(named)["203.0.113.1/32"]
    summary = named.names.summary()
    assert summary and (summary.selectors, summary.names, summary.addresses) == (1, 1, 1)


async def test_why_knows_names_before_and_after_they_are_known(named: World) -> None:
    async def why(name: str) -> tuple[str, str]:
        answer = await named.questions.evaluate(Question("egress", CLIENT, Peer(name=name), "TCP", 443))
        return answer.verdict, answer.steps[0]

    verdict, step = await why("A.io.")
    assert verdict == "allowed" and "nobody on this node was told an address of A.io. yet" in step
    assert (await why("b.io"))[0] == "denied by default"
    await learn(named, "a.io", "203.0.113.1", "203.0.113.2")
    assert await why("a.io") == ("allowed", "a.io is 203.0.113.1, 203.0.113.2, as pods were told")
    pod = EndpointState(7, "node2", 300, ["203.0.113.2"], "default", "p", labels=["k8s:app=p"])
    node = NodeState("node2", ["172.31.0.2"], ["172.31.0.2"])
    await named.listener.take([Change(node_key("node2"), encode(node), 1)])
    await named.listener.take([Change(endpoint_key("node2", 7), encode(pod), 2)])
    named.control.settle()
    assert (await why("a.io"))[0] == "denied by default", "one of its addresses is a pod's"


async def test_trying_a_policy_counts_its_names_and_leaves_no_trace(named: World) -> None:
    before = (
        dict(named.plane.addresses.entries),
        dict(named.plane.policies.entries),
        named.control.identities,
    )
    key = "objects/CiliumNetworkPolicy/default/more"
    policy = names_policy({"matchName": "b.io"}, {"matchName": "c.io"})
    needs = {need.table: need.needed for need in named.listener.tried({key: policy})}
    assert needs["policies"] == len(before[1]) + 2 * 2 * 3  # names, families, protocols
    named.control.settle()
    assert (named.plane.addresses.entries, named.plane.policies.entries, named.control.identities) == before


# ---- nodes ---------------------------------------------------------------------------------------


async def set_node(world: World, name: str, labels: Mapping[str, str] | None, number: int = 0) -> None:
    if number:
        address = f"172.31.0.{number}"
        state = NodeState(name, [address], [address], [f"10.244.{number}.0/24"])
        await world.store.put(node_key(name), encode(state))
        await world.listener.take([Change(node_key(name), encode(state), 1)])
    object = None if labels is None else {"metadata": {"name": name, "labels": labels}}
    await world.tell("Node", name, object, "_")


def nodes_policy(*selectors: dict[str, Any]) -> dict[str, Any]:
    policy = names_policy()
    policy["spec"]["egress"] = [{"toNodes": list(selectors)}]
    return policy


def identity_at(world: World, address: str) -> int:
    return {prefix_text(p): r.identity for p, r in read_arrays(*world.plane.addresses.read_all()).items()}[
        f"{address}/32"
    ]


async def test_nodes_are_told_apart_by_the_labels_that_policies_ask_for(named: World) -> None:
    await set_node(named, "node2", {"disk": "ssd", "host": "a"}, 2)
    await set_node(named, "node3", {"disk": "ssd", "host": "b"}, 3)
    await set_node(named, "node4", {"disk": "hdd"}, 4)
    await set_node(named, "node5", {}, 5)
    assert identity_at(named, "172.31.0.2") == 6
    await named.tell("CiliumNetworkPolicy", "names", nodes_policy({"matchLabels": {"disk": "ssd"}}))
    two, three, four, five = (identity_at(named, f"172.31.0.{n}") for n in (2, 3, 4, 5))
    assert two == three != four and five == 6 and two >= 1 << 24
    assert labels(named, two) == {"reserved:remote-node", "node:disk=ssd"}
    verdicts = [await asked(named, f"172.31.0.{n}") for n in (2, 3, 4, 5)]
    assert verdicts == ["allowed", "allowed", "denied by default", "denied by default"]
    assert await asked(named, "172.31.0.1") == "denied by default", "the node itself is not selected"
    await set_node(named, "node4", {"disk": "ssd"})
    assert identity_at(named, "172.31.0.4") == two
    assert await named.start_again() == 0
    await named.tell("CiliumNetworkPolicy", "names", None)
    assert {identity_at(named, f"172.31.0.{n}") for n in (2, 3, 4, 5)} == {6}
    assert kernel(named) == {}


async def test_every_other_node_and_those_without_a_label(named: World) -> None:
    await set_node(named, "node2", {"disk": "ssd"}, 2)
    await set_node(named, "node3", {}, 3)
    await named.tell("CiliumNetworkPolicy", "names", nodes_policy({}))
    verdicts = [await asked(named, f"172.31.0.{n}") for n in (1, 2, 3)]
    assert verdicts == ["denied by default", "allowed", "allowed"]
    absent = {"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]}
    await named.tell("CiliumNetworkPolicy", "names", nodes_policy(absent))
    assert [await asked(named, f"172.31.0.{n}") for n in (2, 3)] == ["denied by default", "allowed"]
    await set_node(named, "node2", None)
    assert await asked(named, "172.31.0.2") == "allowed"


async def test_entities_mean_nodes_with_labels_too(named: World) -> None:
    await set_node(named, "node2", {"disk": "ssd"}, 2)
    policy = nodes_policy({"matchLabels": {"disk": "hdd"}})
    policy["spec"]["egress"].append({"toEntities": ["remote-node"]})
    await named.tell("CiliumNetworkPolicy", "names", policy)
    assert identity_at(named, "172.31.0.2") >= 1 << 24
    assert await asked(named, "172.31.0.2") == "allowed"

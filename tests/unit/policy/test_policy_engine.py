"""What single policies and events come to, one behaviour a test."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest

from axoneme.model.labels import Labels, Selector, equals, exists
from axoneme.model.policy import (
    ALL_PORTS,
    AnyPeer,
    CIDRGroup,
    CIDRGroupPeer,
    CIDRPeer,
    Direction,
    Enforcement,
    EntityPeer,
    LabelPeer,
    NamedPort,
    Peer,
    Policy,
    PolicyRef,
    Port,
    PortRange,
    Protocol,
    Rule,
    ServicePeer,
)
from axoneme.policy.engine import Options, PolicyEngine, PolicyKey
from axoneme.policy.lookup import Decision, Outcome, evaluate
from axoneme.policy.peers import Service
from axoneme.policy.sides import PeerSet
from axoneme.policy.table import Key, Value, Verdict

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS
TCP, UDP, ICMP = 6, 17, 1
HTTP = PortRange(Protocol.TCP, 80, 80)
WEB, DB, CACHE = 300, 301, 302
LOCAL = 1 << 24
OPEN = Value(Verdict.ALLOW, 0)


def pod(app: str, namespace: str = "shop") -> Labels:
    return Labels.parse([f"k8s:app={app}", f"k8s:io.kubernetes.pod.namespace={namespace}"])


def app(name: str) -> Selector:
    return Selector((equals("any", "app", name),))


def rule(
    direction: Direction,
    peers: Iterable[Peer] = (AnyPeer(),),
    ports: Iterable[Port] = ALL_PORTS,
    deny: bool = False,
    path: str = "spec.rules[0]",
) -> Rule:
    return Rule(direction, tuple(peers), tuple(ports), deny, path)


def policy(name: str, subject: Selector, *rules: Rule, closes: Iterable[Direction] | None = None) -> Policy:
    closed = {r.direction for r in rules} if closes is None else closes
    return Policy(PolicyRef("CiliumNetworkPolicy", "shop", name), subject, rules, frozenset(closed))


def key(name: str) -> PolicyKey:
    return PolicyKey("CiliumNetworkPolicy", "shop", name)


def give(engine: PolicyEngine, *policies: Policy) -> None:
    for item in policies:
        engine.upsert_policy(key(item.ref.name), (item,))
    for network in engine.needed_prefixes():
        engine.upsert_cidr_identity(number(network), network)


def number(network: object) -> int:
    return LOCAL + int(ip_network(str(network)).network_address) % 9973 + ip_network(str(network)).prefixlen


@pytest.fixture
def engine() -> PolicyEngine:
    """Three pods are known, the web one is here, and all this is in the kernel already."""
    return make()


def make(options: Options | None = None) -> PolicyEngine:
    engine = PolicyEngine(options or Options())
    for identity, labels in ((WEB, pod("web")), (DB, pod("db")), (CACHE, pod("cache", "other"))):
        engine.upsert_identity(identity, labels)
    engine.add_subject(WEB)
    engine.changes()
    return engine


def decide(engine: PolicyEngine, direction: Direction, peer: int, protocol: int, port: int) -> Decision:
    engine.changes()
    return evaluate(engine.table, WEB, direction, peer, protocol, port)


def allows(
    engine: PolicyEngine, direction: Direction, peer: int, protocol: int = TCP, port: int = 80
) -> bool:
    return decide(engine, direction, peer, protocol, port).allowed


# ---- open and closed ---------------------------------------------------------------------------


def test_without_a_policy_one_entry_opens_each_direction(engine: PolicyEngine) -> None:
    assert dict(engine.table) == {Key(WEB, 0, direction, 0, 0, 72): OPEN for direction in Direction}


def test_a_subject_whose_labels_are_not_known_has_no_entries_and_so_nothing_passes() -> None:
    engine = PolicyEngine()
    engine.add_subject(WEB)
    assert not engine.changes() and not engine.table
    engine.upsert_identity(WEB, pod("web"))
    assert len(engine.changes()) == 2
    engine.remove_identity(WEB)
    assert len(engine.changes().delete) == 2 and not engine.table


def test_a_policy_closes_its_direction_only(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP])))
    assert allows(engine, INGRESS, DB) and not allows(engine, INGRESS, DB, port=81)
    assert not allows(engine, INGRESS, CACHE) and not allows(engine, INGRESS, DB, ICMP, 8)
    assert allows(engine, EGRESS, CACHE)


def test_a_closed_direction_without_rules_denies_all(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), closes=[INGRESS]))
    assert decide(engine, INGRESS, DB, TCP, 80).outcome is Outcome.DEFAULT_DENIED


def test_a_policy_that_does_not_ask_for_default_deny_leaves_open_but_its_denies_hold(
    engine: PolicyEngine,
) -> None:
    denying = rule(INGRESS, [LabelPeer(app("db"))], [HTTP], deny=True)
    give(engine, policy("a", app("web"), denying, closes=[]))
    assert not allows(engine, INGRESS, DB)
    assert allows(engine, INGRESS, DB, port=81) and allows(engine, INGRESS, CACHE)
    assert not engine.enforced(WEB, INGRESS)


def test_an_endpoint_without_labels_yet_is_closed() -> None:
    engine = make()
    engine.add_subject(5)
    engine.changes()
    assert not evaluate(engine.table, 5, EGRESS, DB, TCP, 80).allowed
    assert evaluate(engine.table, 5, INGRESS, 1, TCP, 80).allowed


def test_modes_of_enforcement(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], deny=True)))
    assert not allows(engine, INGRESS, DB) and allows(engine, EGRESS, DB)
    engine.set_enforcement(Enforcement.ALWAYS)
    assert not allows(engine, EGRESS, DB)
    engine.set_enforcement(Enforcement.NEVER)
    assert allows(engine, INGRESS, DB) and allows(engine, EGRESS, DB)
    give(engine, policy("b", app("web"), rule(EGRESS, [LabelPeer(app("db"))], deny=True)))
    assert allows(engine, EGRESS, DB)
    engine.set_enforcement(Enforcement.DEFAULT)
    assert not allows(engine, INGRESS, DB) and not allows(engine, EGRESS, DB)


def test_the_host_reaches_its_pods_unless_a_deny_or_the_options_forbid_it(engine: PolicyEngine) -> None:
    closed = policy("a", app("web"), closes=Direction)
    give(engine, closed)
    assert allows(engine, INGRESS, 1, ICMP, 8) and not allows(engine, EGRESS, 1)
    assert decide(engine, INGRESS, 1, TCP, 80).rules == ()
    give(engine, policy("b", app("web"), rule(INGRESS, [EntityPeer("host")], [HTTP], deny=True)))
    assert not allows(engine, INGRESS, 1) and allows(engine, INGRESS, 1, port=81)
    strict = make(Options(host_reaches_pods=False))
    give(strict, closed)
    assert not allows(strict, INGRESS, 1)


# ---- deny over allow ---------------------------------------------------------------------------


def test_a_wide_deny_is_not_hidden_by_a_narrow_allow(engine: PolicyEngine) -> None:
    give(
        engine,
        policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP])),
        policy("b", app("web"), rule(INGRESS, [LabelPeer(app("db"))], deny=True)),
    )
    found = decide(engine, INGRESS, DB, TCP, 80)
    assert found.outcome is Outcome.DENIED
    assert [ref.name for ref in engine.rules(found.rule)] == ["b"]


def test_a_deny_of_every_peer_beats_an_allow_of_one_and_the_other_way_round(engine: PolicyEngine) -> None:
    give(
        engine,
        policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))]), rule(EGRESS)),
        policy(
            "b",
            app("web"),
            rule(INGRESS, ports=[HTTP], deny=True),
            rule(EGRESS, [LabelPeer(app("db"))], deny=True),
        ),
    )
    assert not allows(engine, INGRESS, DB) and allows(engine, INGRESS, DB, port=81)
    assert not allows(engine, EGRESS, DB) and allows(engine, EGRESS, CACHE)


def test_an_allow_is_put_down_to_every_rule_that_gives_it(engine: PolicyEngine) -> None:
    give(
        engine,
        policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP])),
        policy("b", app("web"), rule(INGRESS, [LabelPeer(app("db"))])),
        policy("c", app("web"), rule(INGRESS, ports=[HTTP])),
    )
    found = decide(engine, INGRESS, DB, TCP, 80)
    assert [[ref.name for ref in engine.rules(n)] for n in found.rules] == [["a", "b"], ["c"]]
    assert engine.rules(found.rule)[0] == PolicyRef("CiliumNetworkPolicy", "shop", "a", "spec.rules[0]")
    assert [ref.name for ref in engine.rules(decide(engine, INGRESS, DB, TCP, 81).rule)] == ["b"]


# ---- peers -------------------------------------------------------------------------------------


def test_a_selector_that_asks_for_nothing_does_not_mean_the_world(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(EGRESS, [LabelPeer(Selector())])))
    assert allows(engine, EGRESS, DB) and allows(engine, EGRESS, 1)
    assert not allows(engine, EGRESS, 9)
    give(engine, policy("a", app("web"), rule(EGRESS, [LabelPeer(Selector((exists("reserved", "world"),)))])))
    assert allows(engine, EGRESS, 9) and not allows(engine, EGRESS, DB)


def test_a_peer_that_selects_nothing_matches_nobody(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(INGRESS, [EntityPeer("none")]), rule(EGRESS, [])))
    assert not allows(engine, INGRESS, DB) and not allows(engine, EGRESS, DB)


def test_the_cluster_is_its_pods_and_nodes_without_other_clusters_and_the_world(engine: PolicyEngine) -> None:
    here = Labels((*pod("db"), *Labels.parse(["k8s:io.cilium.k8s.policy.cluster=default"])))
    there = Labels((*pod("db"), *Labels.parse(["k8s:io.cilium.k8s.policy.cluster=other"])))
    engine.upsert_identity(400, here)
    engine.upsert_identity(401, there)
    give(engine, policy("a", app("web"), rule(EGRESS, [EntityPeer("cluster")])))
    assert all(allows(engine, EGRESS, peer) for peer in (DB, 400, 1, 3, 4, 5, 6, 7, 8))
    assert not any(allows(engine, EGRESS, peer) for peer in (401, 9, 10))


def test_the_world_includes_every_prefix_outside(engine: PolicyEngine) -> None:
    prefix = ip_network("203.0.113.0/24")
    give(
        engine,
        policy("a", app("web"), rule(EGRESS, [EntityPeer("world")])),
        policy("b", app("other"), rule(EGRESS, [CIDRPeer(prefix)])),
    )
    assert all(allows(engine, EGRESS, peer) for peer in (9, 10, number(prefix)))
    assert not any(allows(engine, EGRESS, peer) for peer in (DB, 1, 6))


def test_a_node_with_one_family_calls_the_world_2() -> None:
    engine = make(Options(ipv6=False))
    give(engine, policy("a", app("web"), rule(EGRESS, [EntityPeer("world-ipv4")])))
    assert allows(engine, EGRESS, 2) and not allows(engine, EGRESS, 9)
    give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(ip_network("0.0.0.0/0"))])))
    assert allows(engine, EGRESS, 2)
    give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(ip_network("::/0"))])))
    assert not allows(engine, EGRESS, 2)
    give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(ip_network("2001:db8::/32"))])))
    assert not engine.needed_prefixes()


def test_a_range_selects_longer_prefixes_inside_it_but_not_its_excepts(engine: PolicyEngine) -> None:
    wide, hole, inner = (ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"))
    give(
        engine,
        policy("a", app("web"), rule(EGRESS, [CIDRPeer(wide, (hole,))])),
        policy("b", app("db"), rule(EGRESS, [CIDRPeer(inner), CIDRPeer(ip_network("10.1.9.0/24"))])),
    )
    assert engine.needed_prefixes() == {wide, hole, inner, ip_network("10.1.9.0/24")}
    assert allows(engine, EGRESS, number(wide)) and allows(engine, EGRESS, number(inner))
    assert not allows(engine, EGRESS, number(hole)) and not allows(engine, EGRESS, number("10.1.9.0/24"))
    assert not allows(engine, EGRESS, 9) and not allows(engine, EGRESS, DB)


def test_a_whole_address_space_is_the_world_and_needs_no_identity(engine: PolicyEngine) -> None:
    hole = ip_network("10.0.0.0/8")
    give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(ip_network("0.0.0.0/0"), (hole,))])))
    assert engine.needed_prefixes() == {hole}
    assert (
        allows(engine, EGRESS, 9)
        and not allows(engine, EGRESS, 10)
        and not allows(engine, EGRESS, number(hole))
    )


def test_needed_prefixes_are_the_same_object_until_they_change(engine: PolicyEngine) -> None:
    prefix = ip_network("10.0.0.0/8")
    give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(prefix)])))
    before = engine.needed_prefixes()
    give(engine, policy("b", app("db"), rule(INGRESS, [CIDRPeer(prefix)])))
    engine.remove_policy(key("a"))
    assert engine.needed_prefixes() is before
    engine.remove_policy(key("b"))
    assert engine.needed_prefixes() == frozenset()


def test_ranges_select_nodes_only_if_the_options_say_so() -> None:
    address = ip_network("172.31.0.2/32")
    for options, wanted in ((Options(), False), (Options(cidr_matches_nodes=True), True)):
        engine = make(options)
        engine.upsert_identity((2 << 24) + 1, Labels.parse(["reserved:remote-node"]), [address])
        engine.upsert_identity(DB, pod("db"), [address])
        give(engine, policy("a", app("web"), rule(EGRESS, [CIDRPeer(ip_network("172.31.0.0/24"))])))
        assert allows(engine, EGRESS, (2 << 24) + 1) is wanted
        assert not allows(engine, EGRESS, DB)


def test_cidr_groups_count_as_they_stand(engine: PolicyEngine) -> None:
    prefix = ip_network("203.0.113.0/24")
    wanted = Selector((equals("any", "kind", "partner"),))
    named = policy("a", app("web"), rule(EGRESS, [CIDRGroupPeer(name="g")]))
    labelled = policy("b", app("web"), rule(INGRESS, [CIDRGroupPeer(selector=wanted)]))
    give(engine, named, labelled)
    assert not engine.needed_prefixes() and not allows(engine, EGRESS, number(prefix))
    engine.upsert_cidr_group(CIDRGroup("g", (prefix,), (("kind", "partner"),)))
    give(engine)
    assert allows(engine, EGRESS, number(prefix)) and allows(engine, INGRESS, number(prefix))
    engine.upsert_cidr_group(CIDRGroup("g", (prefix,)))
    assert allows(engine, EGRESS, number(prefix)) and not allows(engine, INGRESS, number(prefix))
    engine.remove_cidr_group("g")
    assert not engine.needed_prefixes() and not allows(engine, EGRESS, number(prefix))


def test_a_service_means_its_pods_or_the_addresses_of_one_without_selector(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(EGRESS, [ServicePeer("shop", name="db")])))
    assert not allows(engine, EGRESS, DB)
    engine.upsert_service(Service("shop", "db", selector={"app": "db"}))
    assert allows(engine, EGRESS, DB)
    address = ip_address("203.0.113.9")
    engine.upsert_service(Service("shop", "db", addresses=frozenset({address})))
    give(engine)
    assert not allows(engine, EGRESS, DB) and allows(engine, EGRESS, number(address))
    engine.remove_service("shop", "db")
    assert not allows(engine, EGRESS, number(address))


def test_a_policy_with_an_unknown_entity_is_refused_whole(engine: PolicyEngine) -> None:
    good = policy("a", app("web"), rule(EGRESS, [EntityPeer("world")]))
    give(engine, good)
    bad = policy("a", app("web"), rule(INGRESS), rule(EGRESS, [EntityPeer("mars")], path="spec.egress[0]"))
    with pytest.raises(ValueError, match=r"shop/a: spec.egress\[0\]: no entity has the name 'mars'"):
        engine.upsert_policy(key("a"), (good, bad))
    assert allows(engine, EGRESS, 9) and not allows(engine, EGRESS, DB)
    assert engine.policies_selecting(WEB) == [good] and engine.needed_prefixes() == frozenset()


# ---- ports -------------------------------------------------------------------------------------


def test_a_port_name_means_the_subjects_port_on_ingress_and_the_peers_on_egress(engine: PolicyEngine) -> None:
    http = NamedPort(Protocol.ANY, "http")
    dbs = [LabelPeer(app("db"))]
    give(engine, policy("a", app("web"), rule(INGRESS, dbs, [http]), rule(EGRESS, dbs, [http])))
    assert not allows(engine, INGRESS, DB, TCP, 8080)
    engine.set_named_ports(WEB, {("http", Protocol.TCP): frozenset({8080})})
    engine.set_named_ports(
        DB, {("http", Protocol.UDP): frozenset({53, 54}), ("other", Protocol.UDP): frozenset({55})}
    )
    assert allows(engine, INGRESS, DB, TCP, 8080) and not allows(engine, INGRESS, DB, UDP, 53)
    assert allows(engine, EGRESS, DB, UDP, 53) and allows(engine, EGRESS, DB, UDP, 54)
    assert not allows(engine, EGRESS, DB, TCP, 8080) and not allows(engine, EGRESS, DB, UDP, 55)
    engine.set_named_ports(DB, {("http", Protocol.UDP): frozenset({53})})
    assert allows(engine, EGRESS, DB, UDP, 53) and not allows(engine, EGRESS, DB, UDP, 54)
    engine.set_named_ports(WEB, {})
    assert not allows(engine, INGRESS, DB, TCP, 8080)


def test_a_port_name_towards_every_peer_means_each_peers_own_port(engine: PolicyEngine) -> None:
    engine.set_named_ports(DB, {("http", Protocol.TCP): frozenset({81})})
    give(engine, policy("a", app("web"), rule(EGRESS, ports=[NamedPort(Protocol.TCP, "http"), HTTP])))
    assert allows(engine, EGRESS, DB, TCP, 81) and not allows(engine, EGRESS, CACHE, TCP, 81)
    assert allows(engine, EGRESS, CACHE, TCP, 80)
    engine.set_named_ports(CACHE, {("http", Protocol.TCP): frozenset({81})})
    assert allows(engine, EGRESS, CACHE, TCP, 81)


# ---- what a change costs -----------------------------------------------------------------------


def test_what_is_known_already_changes_nothing(engine: PolicyEngine) -> None:
    item = policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP]))
    give(engine, item)
    assert engine.changes()
    give(engine, item)
    engine.upsert_identity(DB, pod("db"))
    engine.add_subject(WEB)
    assert not engine.changes()


def test_a_new_identity_costs_an_entry_per_rule_that_selects_it_and_disturbs_nobody(
    engine: PolicyEngine,
) -> None:
    give(
        engine,
        policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP])),
        policy("b", app("web"), rule(EGRESS, [LabelPeer(app("db"))], [PortRange(Protocol.TCP, 5432, 5432)])),
        policy("c", app("web"), rule(EGRESS, [LabelPeer(app("cache"))])),
    )
    engine.changes()
    engine.upsert_identity(310, pod("db", "third"))
    diff = engine.changes()
    assert [tuple(k) for k, _ in diff.put] == [
        (310 - 10, 310, 0, 6, 80, 96),
        (300, 310, 1, 6, 5432, 96),
    ]
    assert len(diff) == 2 and not diff.changed and not diff.rules


def test_a_new_identity_that_a_deny_selects_may_change_what_was_decided_before_it_was_known(
    engine: PolicyEngine,
) -> None:
    give(engine, policy("a", app("web"), rule(EGRESS), rule(EGRESS, [LabelPeer(app("db"))], deny=True)))
    engine.changes()
    engine.upsert_identity(310, pod("db"))
    assert engine.changes().changed == {WEB}


def test_what_changes_for_a_known_peer_or_every_peer_raises_the_subjects_epoch(engine: PolicyEngine) -> None:
    engine.add_subject(DB)
    engine.changes()
    give(engine, policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], [HTTP])))
    assert engine.changes().changed == {WEB}
    give(engine, policy("a", app("web"), rule(INGRESS, [LabelPeer(app("cache"))], [HTTP])))
    assert engine.changes().changed == {WEB}
    give(engine, policy("b", Selector(), rule(EGRESS)))
    assert engine.changes().changed == {WEB, DB}


def test_a_new_subject_has_nothing_to_be_decided_anew_and_one_that_left_has(engine: PolicyEngine) -> None:
    engine.add_subject(DB)
    assert engine.changes().changed == set()
    engine.remove_subject(DB)
    diff = engine.changes()
    assert diff.changed == {DB} and len(diff.delete) == 2
    assert {k.subject for k in engine.table} == {WEB}


def test_a_subject_that_leaves_and_comes_back_between_two_calls_is_not_new(engine: PolicyEngine) -> None:
    engine.remove_subject(WEB)
    engine.add_subject(WEB)
    give(engine, policy("a", app("web"), closes=[INGRESS]))
    assert engine.changes().changed == {WEB}


def test_an_edit_writes_only_what_the_edited_rule_touches(engine: PolicyEngine) -> None:
    ingress = rule(INGRESS, [LabelPeer(app("db"))], [HTTP], path="spec.ingress[0]")
    egress = rule(EGRESS, [LabelPeer(app("db"))], [HTTP], path="spec.egress[0]")
    give(engine, policy("a", app("web"), ingress, egress))
    engine.changes()
    edited = rule(EGRESS, [LabelPeer(app("db"))], [PortRange(Protocol.TCP, 81, 81)], path="spec.egress[0]")
    give(engine, policy("a", app("web"), ingress, edited))
    diff = engine.changes()
    assert {k.direction for k, _ in diff.writes()} == {EGRESS} and len(diff) == 2


def test_a_policy_for_nobody_here_costs_nothing(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("db"), rule(INGRESS, [LabelPeer(app("cache"))], [HTTP])))
    assert not engine.changes()
    engine.add_subject(DB)
    assert len(engine.changes()) == 3 and len(engine.policies_selecting(DB)) == 1


def test_an_object_with_several_specs_is_replaced_as_a_whole(engine: PolicyEngine) -> None:
    first = policy("a", app("web"), rule(INGRESS, [LabelPeer(app("db"))], path="specs[0].ingress[0]"))
    second = policy("a", app("web"), rule(INGRESS, [LabelPeer(app("cache"))], path="specs[1].ingress[0]"))
    engine.upsert_policy(key("a"), (first, second))
    assert allows(engine, INGRESS, DB) and allows(engine, INGRESS, CACHE)
    engine.upsert_policy(key("a"), (second,))
    assert not allows(engine, INGRESS, DB) and allows(engine, INGRESS, CACHE)
    engine.remove_policy(key("a"))
    assert allows(engine, INGRESS, DB) and not engine.policies_selecting(WEB)


def test_labels_of_a_local_identity_may_change(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), closes=[INGRESS]))
    assert not allows(engine, INGRESS, DB)
    engine.upsert_identity(WEB, pod("shop"))
    assert allows(engine, INGRESS, DB)


def test_a_reserved_identity_keeps_its_own_labels(engine: PolicyEngine) -> None:
    give(engine, policy("a", app("web"), rule(EGRESS, [EntityPeer("kube-apiserver")])))
    assert not allows(engine, EGRESS, 1)
    engine.upsert_identity(1, Labels.parse(["reserved:kube-apiserver"]))
    assert allows(engine, EGRESS, 1) and allows(engine, INGRESS, 1)
    engine.remove_identity(1)
    assert not allows(engine, EGRESS, 1)


def test_nothing_is_left_of_what_has_gone() -> None:
    gc.collect()
    before = sum(isinstance(thing, PeerSet) for thing in gc.get_objects())
    engine = make()
    for index in range(20):
        peers: list[Peer] = [
            CIDRPeer(ip_network(f"10.{index}.0.0/16")),
            LabelPeer(app(f"a{index}")),
            EntityPeer("cluster"),
        ]
        give(
            engine,
            policy(f"p{index}", app("web"), rule(EGRESS, peers, [NamedPort(Protocol.TCP, f"n{index}")])),
        )
        engine.changes()
    engine.set_enforcement(Enforcement.NEVER)
    engine.set_enforcement(Enforcement.DEFAULT)
    for index in range(20):
        engine.remove_policy(key(f"p{index}"))
        engine.remove_identity(number(f"10.{index}.0.0/16"))
    assert not engine.changes().rules
    assert len(engine.table) == 2 and not engine.needed_prefixes()
    gc.collect()
    # Every peer and the host, which the engine always needs.
    assert sum(isinstance(thing, PeerSet) for thing in gc.get_objects()) == before + 2


def test_which_prefixes_have_become_needed_or_are_no_longer(engine: PolicyEngine) -> None:
    wide, hole = ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16")
    engine.upsert_policy(key("a"), [policy("a", app("web"), rule(EGRESS, [CIDRPeer(wide, (hole,))]))])
    assert engine.touched_prefixes() == {wide, hole} and engine.needs_prefix(wide)
    engine.upsert_policy(key("b"), [policy("b", app("db"), rule(EGRESS, [CIDRPeer(wide)]))])
    assert not engine.touched_prefixes()
    engine.remove_policy(key("a"))
    assert engine.touched_prefixes() == {hole}
    assert engine.needs_prefix(wide) and not engine.needs_prefix(hole)

"""Addresses of services from pools: rule by rule, and against a naive judge on random clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from axoneme.ipam.loadbalancers import SATISFIED, Assignment, Key, assign
from axoneme.ipam.loadbalancerstatus import pool_conditions, service_status
from axoneme.ipam.sharing import incompatibility
from axoneme.model.conditions import Condition
from axoneme.model.exposure import ExposedService, labels_of
from axoneme.model.labels import EVERYTHING, K8S, Selector, equals
from axoneme.model.loadbalancerpool import Block, LoadBalancerPool
from axoneme.model.metadata import Metadata
from axoneme.model.services import Ingress, Service, ServicePort


def service(
    name: str,
    *held: str,
    asks: Sequence[str] = (),
    labels: dict[str, str] | None = None,
    created: str = "",
    namespace: str = "default",
    kind: str = "LoadBalancer",
    of_class: str = "",
    families: Sequence[int] = (),
    policy: str = "",
    share: str = "",
    share_with: Iterable[str] = (),
    ports: Iterable[int | tuple[int, str]] = (80,),
    local: bool = False,
    selector: dict[str, str] | None = None,
    conditions: tuple[Condition, ...] = (),
    unreadable: tuple[str, ...] = (),
) -> ExposedService:
    metadata = Metadata(name, namespace, labels or {})
    pairs = [(each, "TCP") if isinstance(each, int) else each for each in ports]
    about = Service(
        metadata,
        kind,
        selector or {},
        tuple(ServicePort(port, port, protocol=protocol) for port, protocol in pairs),
        external_policy="Local" if local else "Cluster",
        families=tuple(families),
        family_policy=policy,
        load_balancer_class=of_class,
        ingress=tuple(Ingress(ip_address(each)) for each in held),
    )
    return ExposedService(
        about,
        labels_of(metadata),
        tuple(map(ip_address, asks)),
        unreadable,
        share,
        frozenset(share_with),
        conditions,
        created,
    )


def pool(
    name: str,
    *blocks: str,
    selector: Selector = EVERYTHING,
    disabled: bool = False,
    created: str = "",
    ends: bool = True,
) -> LoadBalancerPool:
    """Blocks as ``first-last``."""
    found = tuple(Block(*map(ip_address, each.split("-")), of_cidr=True) for each in blocks)
    return LoadBalancerPool(Metadata(name), found, selector, disabled, ends, created)


def given_to(assignment: Assignment, name: str, namespace: str = "default") -> list[str]:
    return [str(address) for address in assignment.services[namespace, name].addresses]


def why(assignment: Assignment, name: str) -> str:
    return assignment.services["default", name].reason


BLUE = pool("blue", "10.0.0.0-10.0.0.3")
SIX = pool("six", "fd00::-fd00::3")


def test_each_service_gets_the_lowest_free_address_the_older_one_first() -> None:
    found = assign([service("a", created="2"), service("b", created="1"), service("c", "10.0.0.0")], [BLUE])
    assert [given_to(found, name) for name in "abc"] == [["10.0.0.2"], ["10.0.0.1"], ["10.0.0.0"]]
    assert why(found, "a") == "satisfied"
    assert (found.pools["blue"].available, found.pools["blue"].used) == (1, 3)


def test_who_holds_an_address_keeps_it_though_an_older_one_wants_some() -> None:
    small = pool("small", "10.0.0.0-10.0.0.0")
    found = assign([service("old", created="1"), service("new", "10.0.0.0", created="2")], [small])
    assert given_to(found, "new") == ["10.0.0.0"]
    assert why(found, "old") == "out_of_ips"


def test_selectors_may_ask_for_namespace_and_name() -> None:
    chosen = Selector((equals(K8S, "io.kubernetes.service.namespace", "shop"),))
    found = assign(
        [service("a"), service("a", namespace="shop")], [pool("p", "10.0.0.0-10.0.0.3", selector=chosen)]
    )
    assert given_to(found, "a", "shop") == ["10.0.0.0"]
    assert (given_to(found, "a"), why(found, "a")) == ([], "no_pool")


def test_requested_addresses() -> None:
    red = pool("red", "10.0.1.0-10.0.1.3", selector=Selector((equals(K8S, "color", "red"),)))
    held = pool("held", "10.0.2.0-10.0.2.3", ends=False)
    off = pool("off", "10.0.3.0-10.0.3.3", disabled=True)
    asked = {
        "two": ["10.0.0.2", "10.0.0.3"],
        "taken": ["10.0.0.2"],
        "nowhere": ["192.0.2.1"],
        "not-selected": ["10.0.1.1"],
        "reserved": ["10.0.2.0"],
        "disabled": ["10.0.3.1"],
        "half": ["10.0.0.1", "192.0.2.1"],
    }
    found = assign(
        [service(name, asks=addresses, created=str(n)) for n, (name, addresses) in enumerate(asked.items())]
        + [service("unreadable", unreadable=("10.0.0",))],
        [BLUE, red, held, off],
    )
    assert {name: (given_to(found, name), why(found, name)) for name in [*asked, "unreadable"]} == {
        "two": (["10.0.0.2", "10.0.0.3"], "satisfied"),
        "taken": ([], "already_allocated"),
        "nowhere": ([], "no_pool"),
        "not-selected": ([], "pool_selector_mismatch"),
        "reserved": ([], "reserved_ip"),
        "disabled": ([], "no_pool"),
        "half": (["10.0.0.1"], "no_pool"),
        "unreadable": ([], "invalid_ip"),
    }


def test_who_asks_for_an_address_is_served_before_who_takes_any() -> None:
    found = assign([service("any", created="1"), service("this", asks=["10.0.0.0"], created="2")], [BLUE])
    assert (given_to(found, "this"), given_to(found, "any")) == (["10.0.0.0"], ["10.0.0.1"])


def test_a_request_that_changed_moves_the_service() -> None:
    assert given_to(assign([service("a", "10.0.0.0", asks=["10.0.0.3"])], [BLUE]), "a") == ["10.0.0.3"]


def test_families() -> None:
    wanted = {
        ("", ()): ["10.0.0.0"],
        ("", (6,)): ["fd00::"],
        ("SingleStack", (6, 4)): ["fd00::"],
        ("PreferDualStack", ()): ["10.0.0.0", "fd00::"],
        ("PreferDualStack", (6,)): ["fd00::"],
        ("RequireDualStack", ()): ["10.0.0.0", "fd00::"],
    }
    for (policy, families), addresses in wanted.items():
        made = service("a", policy=policy, families=families)
        assert given_to(assign([made], [BLUE, SIX]), "a") == addresses
    six_only = assign([service("a"), service("b", policy="RequireDualStack")], [BLUE, SIX], families=[6])
    assert given_to(six_only, "a") == ["fd00::"]
    assert (given_to(six_only, "b"), why(six_only, "b")) == (["fd00::1"], "no_pool")


def test_one_that_no_longer_wants_a_family_loses_its_address() -> None:
    found = assign([service("a", "10.0.0.0", "fd00::", families=(6,))], [BLUE, SIX])
    assert given_to(found, "a") == ["fd00::"]


def test_a_disabled_pool_gives_none_and_takes_none_away() -> None:
    off = replace(BLUE, disabled=True)
    found = assign([service("old", "10.0.0.1"), service("new")], [off])
    assert (given_to(found, "old"), given_to(found, "new"), why(found, "new")) == (
        ["10.0.0.1"],
        [],
        "no_pool",
    )


def test_what_leaves_a_pool_is_withdrawn_and_replaced() -> None:
    for pools, addresses in (([BLUE, SIX], ["10.0.0.0"]), ([SIX], [])):
        found = assign([service("a", "10.9.9.9")], pools)
        assert given_to(found, "a") == addresses


def test_of_pools_that_overlap_the_newer_gives_none() -> None:
    newer = pool("a-newer", "10.0.0.3-10.0.0.9", created="2")
    found = assign(
        [service("held", "10.0.0.9"), *(service(f"s{n}") for n in range(5))],
        [newer, replace(BLUE, created="1")],
    )
    its, that = "10.0.0.3 - 10.0.0.9", "10.0.0.0 - 10.0.0.3"
    assert found.pools["a-newer"].conflict == (
        f"Pool conflicts since range '{its}' overlaps range '{that}' from IP Pool 'blue'"
    )
    assert not found.pools["blue"].conflict
    assert given_to(found, "held") == ["10.0.0.9"]
    assert why(found, "s4") == "out_of_ips"
    itself = assign([], [pool("p", "10.0.0.0-10.0.0.3", "10.0.0.2-10.0.0.5")])
    assert "IP Pool 'p'" in itself.pools["p"].conflict
    # What overlaps only with one in conflict is sound.
    third = assign([], [replace(BLUE, created="1"), newer, pool("c", "10.0.0.8-10.0.0.8", created="3")])
    assert not third.pools["c"].conflict


def test_ends_of_a_prefix() -> None:
    kept = pool("p", "10.0.0.0-10.0.0.3", ends=False)
    found = assign([service("old", "10.0.0.0"), *(service(f"s{n}") for n in range(3))], [kept])
    assert given_to(found, "old") == ["10.0.0.0"]
    assert [given_to(found, f"s{n}") for n in range(3)] == [["10.0.0.1"], ["10.0.0.2"], []]
    assert (found.pools["p"].available, found.pools["p"].used) == (0, 3)


def test_services_of_others_are_left_alone_and_former_ones_released() -> None:
    told = (Condition(type=SATISFIED, status="True"),)
    found = assign(
        [
            service("cluster", kind="ClusterIP"),
            service("other", of_class="example.com/metal"),
            service("was", "10.0.0.1", of_class="example.com/metal", conditions=told),
            service("no-more", "10.0.0.2", kind="ClusterIP", conditions=told),
            service("l2", of_class="io.cilium/l2-announcer"),
            service("bgp", of_class="io.cilium/bgp-control-plane"),
        ],
        [BLUE],
    )
    assert {name for _, name in found.services} == {"l2", "bgp"}
    assert {name for _, name in found.released} == {"was", "no-more"}


def test_without_pools_nobody_is_touched_but_who_had_addresses_from_one() -> None:
    told = (Condition(type=SATISFIED, status="True"),)
    found = assign([service("a", "192.0.2.1"), service("b", "10.0.0.1", conditions=told)], [])
    assert set(found.services) == {("default", "b")}
    assert (given_to(found, "b"), why(found, "b")) == ([], "no_pool")


# ---- sharing -----------------------------------------------------------------------------------


def test_services_with_one_key_share() -> None:
    a, b, c, d = (service(n, share="k", ports=[p]) for n, p in zip("abcd", (80, 443, 80, 81), strict=True))
    found = assign([a, b, c, d, service("e", share="other", ports=[1])], [BLUE])
    assert [given_to(found, n) for n in "abcde"] == [
        ["10.0.0.0"],
        ["10.0.0.0"],
        ["10.0.0.1"],  # its port is taken at the first
        ["10.0.0.0"],
        ["10.0.0.2"],
    ]
    assert found.pools["blue"].used == 3


def test_one_port_of_two_protocols_is_two() -> None:
    found = assign(
        [service("t", share="k", ports=[53]), service("u", share="k", ports=[(53, "UDP")])], [BLUE]
    )
    assert given_to(found, "t") == given_to(found, "u")


def test_requested_addresses_are_shared_only_with_the_key() -> None:
    found = assign(
        [
            service("a", asks=["10.0.0.1"], share="k"),
            service("b", asks=["10.0.0.1"], share="k", ports=[81]),
            service("c", asks=["10.0.0.1"], share="k", ports=[80]),
            service("d", asks=["10.0.0.1"], ports=[82]),
        ],
        [BLUE],
    )
    assert [given_to(found, n) for n in "abcd"] == [["10.0.0.1"], ["10.0.0.1"], [], []]
    assert (why(found, "c"), why(found, "d")) == (
        "already_allocated_incompatible_service",
        "already_allocated",
    )
    assert found.services["default", "c"].message.endswith("both have the port 80/TCP")


def test_across_namespaces_both_must_allow_it() -> None:
    def shared(first: list[str], second: list[str]) -> bool:
        a = service("a", share="k", share_with=first)
        b = service("b", share="k", share_with=second, ports=[81], namespace="two")
        found = assign([a, b], [BLUE])
        return given_to(found, "a") == given_to(found, "b", "two")

    assert shared(["two"], ["default"])
    assert shared(["*"], ["other", "default"])
    assert not shared(["two"], [])
    assert not shared([], ["*"])


def test_local_services_share_only_with_the_same_backends() -> None:
    web = service("a", share="k", local=True, selector={"app": "web"})
    for other, suits in (
        (service("b", share="k", local=True, selector={"app": "web"}, ports=[81]), True),
        (service("b", share="k", local=True, selector={"app": "db"}, ports=[81]), False),
        (service("b", share="k", local=True, ports=[81]), False),
        (service("b", share="k", ports=[81]), False),
    ):
        assert (not incompatibility(web, other)) == suits
        assert incompatibility(web, other) == incompatibility(other, web)


def test_of_sharers_that_suit_no_more_the_older_keeps_the_address() -> None:
    a = service("a", "10.0.0.0", share="k", created="1")
    b = service("b", "10.0.0.0", share="k", created="2")
    found = assign([b, a], [BLUE])
    assert (given_to(found, "a"), given_to(found, "b")) == (["10.0.0.0"], ["10.0.0.1"])


# ---- statuses ----------------------------------------------------------------------------------


def test_a_status_is_written_once() -> None:
    asked = service("a", "10.9.9.9")
    verdict = assign([asked], [BLUE]).services[asked.key]
    status = service_status(asked, verdict, "now")
    assert status is not None
    assert [(each.ip, each.ip_mode) for each in status.ingress] == [("10.0.0.0", "VIP")]
    (told,) = status.conditions
    assert (told.type, told.status, told.reason, told.last_transition_time) == (
        SATISFIED,
        "True",
        "satisfied",
        "now",
    )
    after = service("a", "10.0.0.0", conditions=status.conditions)
    assert service_status(after, verdict, "later") is None
    gone = service_status(after, None, "later")
    assert gone is not None
    assert (gone.ingress, gone.conditions) == ((), ())


def test_a_pool_tells_its_counts_and_conflict() -> None:
    state = assign([service("a")], [BLUE]).pools["blue"]
    conditions = pool_conditions(BLUE, state, "now")
    assert conditions is not None
    assert {each.type.removeprefix("cilium.io/"): (each.status, each.message) for each in conditions} == {
        "PoolConflict": ("False", ""),
        "IPsTotal": ("Unknown", "4"),
        "IPsAvailable": ("Unknown", "3"),
        "IPsUsed": ("Unknown", "1"),
    }
    assert pool_conditions(replace(BLUE, conditions=tuple(conditions)), state, "later") is None


# ---- random clusters ---------------------------------------------------------------------------

ADDRESSES = [f"10.0.0.{n}" for n in range(8)] + ["fd00::", "fd00::1", "fd00::2", "fd00::3"]
some_services = st.lists(
    st.builds(
        lambda held, asks, labels, age, namespace, policy, families, share, share_with, ports, local: (
            lambda name: service(
                name,
                *held,
                asks=asks,
                labels=labels,
                created=age,
                namespace=namespace,
                policy=policy,
                families=families,
                share=share,
                share_with=share_with,
                ports=ports,
                local=local,
                selector={"app": "web"},
            )
        ),
        st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True),
        st.just(()) | st.lists(st.sampled_from([*ADDRESSES, "192.0.2.1"]), max_size=2, unique=True),
        st.sampled_from([{}, {"color": "red"}]),
        st.sampled_from(["", "1", "2"]),
        st.sampled_from(["default", "two"]),
        st.sampled_from(["", "PreferDualStack", "RequireDualStack"]),
        st.sampled_from([(), (4,), (6,), (6, 4)]),
        st.sampled_from(["", "k", "l"]),
        st.sampled_from([(), ("two", "default"), ("*",)]),
        st.lists(st.sampled_from([80, 81, (80, "UDP")]), min_size=1, max_size=2, unique=True),
        st.booleans(),
    ),
    max_size=8,
).map(lambda makers: [make(f"s{number}") for number, make in enumerate(makers)])
RED = Selector((equals(K8S, "color", "red"),))
some_pools = st.lists(
    st.builds(
        lambda blocks, selector, disabled, age, ends: (
            lambda name: pool(name, *blocks, selector=selector, disabled=disabled, created=age, ends=ends)
        ),
        st.lists(
            st.sampled_from(
                ["10.0.0.0-10.0.0.1", "10.0.0.2-10.0.0.5", "10.0.0.4-10.0.0.7", "fd00::-fd00::3"]
            ),
            max_size=2,
        ),
        st.sampled_from([EVERYTHING, EVERYTHING, RED]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from(["", "1", "2"]),
        st.booleans(),
    ),
    max_size=4,
).map(lambda makers: [make(f"p{number}") for number, make in enumerate(makers)])


def holding(services: list[ExposedService], assignment: Assignment) -> list[ExposedService]:
    """The services with what was assigned in their statuses."""
    told = (Condition(type=SATISFIED, status="True"),)

    def informed(each: ExposedService) -> ExposedService:
        if each.key not in assignment.services:
            return each
        ingress = tuple(map(Ingress, assignment.services[each.key].addresses))
        return replace(each, service=replace(each.service, ingress=ingress), conditions=told)

    return [informed(each) for each in services]


def may_have(each: ExposedService, text: str, pools: list[LoadBalancerPool], conflicts: set[str]) -> bool:
    """Whether a sound, enabled pool that selects the service has the address to give."""
    address = ip_address(text)
    return any(
        any(address in block for block in pool.blocks)
        and pool.selector.matches(each.labels)
        and not pool.disabled
        and pool.name not in conflicts
        and not pool.reserves(address)
        for pool in pools
    )


@given(some_services, some_pools, st.sampled_from([(4,), (6,), (4, 6)]))
def test_nobody_is_wronged(
    services: list[ExposedService], pools: list[LoadBalancerPool], families: tuple[int, ...]
) -> None:
    found = assign(services, pools, families)
    conflicts = {name for name, state in found.pools.items() if state.conflict}
    by_key: dict[Key, ExposedService] = {each.key: each for each in services}
    holders: dict[str, list[ExposedService]] = {}
    for key, verdict in found.services.items():
        for address in verdict.addresses:
            holders.setdefault(str(address), []).append(by_key[key])
    # No address twice unless it is shared rightly.
    for sharing in holders.values():
        for n, one in enumerate(sharing):
            assert all(not incompatibility(one, other) for other in sharing[:n])
    for key, verdict in found.services.items():
        each = by_key[key]
        got = {str(address) for address in verdict.addresses}
        # All from a pool that selects it: one it had, or one of a pool that gives.
        for text in got:
            selecting = [p for p in pools if p.selector.matches(each.labels)]
            assert any(ip_address(text) in block for p in selecting for block in p.blocks)
            assert ip_address(text) in each.held or may_have(each, text, pools, conflicts)
        if each.requested:
            assert got <= {str(address) for address in each.requested}
            missing = [str(address) for address in each.requested if str(address) not in got]
        else:
            wanted = {
                "RequireDualStack": (4, 6),
                "PreferDualStack": [f for f in families if f in (each.service.families or families)],
            }.get(each.service.family_policy, (each.service.families or families)[:1])
            assert {ip_address(text).version for text in got} <= set(wanted)
            lacking = {f for f in wanted if f not in {ip_address(text).version for text in got}}
            assert (verdict.reason == "satisfied") == (not lacking)
            missing = [text for text in ADDRESSES if ip_address(text).version in lacking & set(families)]
        # What it lacks, it could not have had.
        for text in missing:
            others = holders.get(text, [])
            free = not others or not any(incompatibility(each, other) for other in others)
            assert not (free and may_have(each, text, pools, conflicts))
        assert (verdict.reason == "satisfied") == (not verdict.message)


@given(some_services, some_pools)
def test_it_stands_and_does_not_depend_on_the_order(
    services: list[ExposedService], pools: list[LoadBalancerPool]
) -> None:
    first = assign(services, pools)
    assert assign(services[::-1], pools[::-1]) == first
    again = assign(holding(services, first), pools)
    assert {key: set(each.addresses) for key, each in again.services.items()} == {
        key: set(each.addresses) for key, each in first.services.items()
    }


def renamed(each: ExposedService, name: str) -> ExposedService:
    """The same under another name, and without addresses."""
    metadata = replace(each.service.metadata, name=name)
    return replace(each, service=replace(each.service, metadata=metadata, ingress=()))


@given(some_services, some_pools, some_services)
def test_newcomers_take_nothing_from_who_is_there(
    services: list[ExposedService], pools: list[LoadBalancerPool], more: list[ExposedService]
) -> None:
    settled = holding(services, assign(services, pools))
    before = assign(settled, pools)
    newcomers = [renamed(each, f"n{n}") for n, each in enumerate(more)]
    after = assign([*settled, *newcomers], pools)
    for key, verdict in before.services.items():
        assert set(verdict.addresses) <= set(after.services[key].addresses)

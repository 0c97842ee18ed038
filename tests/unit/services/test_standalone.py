"""Desired state and health to what is balanced; addresses out of pools."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model.balancer import Backend, Desired, Frontend, Pool, Service
from axoneme.model.paths import ManifestError
from axoneme.services.balanced import BackendState, Balanced
from axoneme.services.standalone import Target, assign, claims, compile_all


def service(*backends: Backend, **options: object) -> Desired:
    made = Service("web", (Frontend("203.0.113.10", ports=(80, 443)),), backends, **options)  # type: ignore[arg-type]
    return Desired(services=(made,))


def states(found: Balanced) -> dict[str, tuple[int, BackendState]]:
    return {each.name: (each.weight, each.state) for each in found.backends}


A, B = Backend("10.0.0.1", 80, "a", 3), Backend("10.0.0.2", 80, "b")
ACTIVE, LEAVING = BackendState.ACTIVE, BackendState.LEAVING


def test_each_port_is_a_service_of_the_datapath() -> None:
    found = compile_all(service(A, Backend("10.0.0.3")), {}, set())
    assert [each.port for each in found] == ["80/TCP", "443/TCP"]
    assert [[backend.port for backend in each.backends] for each in found] == [[80, 80], [80, 443]]


@pytest.mark.parametrize("away", [{"drain": True}, {"weight": 0}])
def test_a_drained_backend_is_leaving(away: dict[str, int]) -> None:
    found = compile_all(service(A, Backend("10.0.0.2", 80, "b", **away)), {}, set())[0]
    assert states(found) == {"a": (3, ACTIVE), "b": (0, LEAVING)}


def test_connections_of_a_backend_that_is_down_move_or_stay() -> None:
    down = {Target("web", "b")}
    assert states(compile_all(service(A, B), {}, down)[0]) == {"a": (3, ACTIVE)}
    assert states(compile_all(service(A, B, when_down="keep"), {}, down)[0])["b"] == (0, LEAVING)


def test_when_all_are_down_clients_are_refused_or_get_any() -> None:
    down = {Target("web", "a"), Target("web", "b")}
    assert compile_all(service(A, B), {}, down)[0].backends == ()
    drained = Backend("10.0.0.3", 80, "c", drain=True)
    found = compile_all(service(A, B, drained, when_all_down="all"), {}, down)[0]
    assert states(found) == {"a": (3, ACTIVE), "b": (1, ACTIVE), "c": (0, LEAVING)}


def wanting(*names: str) -> Desired:
    return Desired(
        (Pool("p", ("192.0.2.0/28",)),),
        tuple(Service(name, (Frontend(pool="p", port=80),)) for name in names),
    )


names = st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), unique=True, max_size=14)


@given(names, st.randoms())
def test_addresses_do_not_depend_on_the_order_of_services(wanted: list[str], random: object) -> None:
    shuffled = sorted(wanted, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert assign(wanting(*wanted), {}) == assign(wanting(*shuffled), {})
    assert len(set(assign(wanting(*wanted), {}).values())) == len(wanted)


@given(names, names)
def test_who_has_an_address_keeps_it(first: list[str], second: list[str]) -> None:
    held = assign(wanting(*first), {})
    both = list(dict.fromkeys([*first, *second]))[:14]
    given_then = assign(wanting(*both), held)
    assert all(given_then[claim] == held[claim] for claim in claims(wanting(*both)) if claim in held)


def test_an_address_that_a_frontend_states_is_not_given_away() -> None:
    stated = Service("stated", (Frontend("192.0.2.1", port=80),))
    desired = Desired((Pool("p", ("192.0.2.0/30",)),), (*wanting("a").services, stated))
    assert list(assign(desired, {}).values()) == [ip_address("192.0.2.2")]


def test_a_pool_that_is_too_small_is_told() -> None:
    with pytest.raises(ManifestError, match="no free address of ipv4 for service"):
        assign(wanting(*"abcdefghijklmno"), {})

"""An agent writes the services of the shared state: no more than it must, and none of them twice."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from one_node import Node, node

SERVICES, BACKENDS = 300, 10
TABLES = ("frontends", "services", "slots", "backends", "source_ranges", "maglev")


def service(number: int, **spec: Any) -> dict[str, Any]:
    address = str(ip_address("10.96.0.1") + number)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"web-{number}", "namespace": "default"},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }


def slice_(number: int, count: int = BACKENDS) -> dict[str, Any]:
    first = ip_address("10.128.0.1") + 16 * number
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"web-{number}-a",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": f"web-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [str(first + at)], "conditions": {"ready": True}} for at in range(count)],
    }


def key(object: dict[str, Any]) -> str:
    return f"objects/{object['kind']}/default/{object['metadata']['name']}"


def put(one: Node, *objects: dict[str, Any]) -> None:
    one.write({key(each): each for each in objects})


def balancing(one: Node) -> dict[str, Any]:
    found: dict[str, Any] = one.client.call("status")["balancing"]
    return found


def writes(one: Node) -> dict[str, int]:
    found = one.client.call("status")["writes"]
    return {name: found[name] for name in TABLES if found.get(name)}


def wait_for_backends(one: Node, count: int) -> None:
    one.wait(lambda: balancing(one)["backends"] == count, f"{count} backends", lambda: balancing(one))


@pytest.fixture(scope="module")
def one() -> Iterator[Node]:
    with node() as made:
        made.start()
        put(made, *(each for number in range(SERVICES) for each in (service(number), slice_(number))))
        wait_for_backends(made, SERVICES * BACKENDS)
        yield made


def test_a_change_of_one_backend_is_three_writes(one: Node) -> None:
    before = writes(one)
    put(one, slice_(7, BACKENDS - 1))
    wait_for_backends(one, SERVICES * BACKENDS - 1)
    after = writes(one)
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "slots": 1,
        "services": 1,
        "backends": 1,
    }
    put(one, slice_(7))
    wait_for_backends(one, SERVICES * BACKENDS)


def test_a_restart_with_the_same_services_writes_nothing(one: Node) -> None:
    before = one.client.call("services")
    one.kill()
    one.start()
    assert writes(one) == {}
    assert balancing(one)["backends"] == SERVICES * BACKENDS
    assert one.client.call("services") == before


def test_what_has_changed_while_no_agent_ran_is_all_that_is_written(one: Node) -> None:
    one.kill()
    put(one, slice_(3, BACKENDS + 1))
    one.start()
    assert writes(one) == {"slots": 1, "services": 1, "backends": 1}
    put(one, slice_(3))
    wait_for_backends(one, SERVICES * BACKENDS)


def test_an_agent_that_is_killed_while_it_writes_is_followed_by_one_that_completes_it(one: Node) -> None:
    more = range(SERVICES, 2 * SERVICES)
    put(one, *(each for number in more for each in (service(number), slice_(number))))
    one.kill()
    one.start()
    assert balancing(one)["backends"] == 2 * SERVICES * BACKENDS
    listed = {each["name"]: len(each["backends"]) for each in one.client.call("services")}
    assert listed == {f"default/web-{number}": BACKENDS for number in range(2 * SERVICES)}
    assert not one.client.call("status")["problems"]


def test_an_unreadable_service_changes_nothing_and_is_named(one: Node) -> None:
    before = one.client.call("services")
    broken = service(5, ports=[{"name": "http", "port": 99999}])
    put(one, broken)
    one.wait(
        lambda: key(broken) in one.client.call("status")["problems"],
        "the problem is named",
        lambda: one.client.call("status")["problems"],
    )
    assert one.client.call("services") == before
    put(one, service(5))


def test_two_services_at_one_address_are_told_apart_and_named(one: Node) -> None:
    for number in (0, 2 * SERVICES):
        put(one, service(number, externalIPs=["192.0.2.80"]))
    problem = f"default/web-{2 * SERVICES} port http"
    one.wait(
        lambda: problem in one.client.call("status")["problems"],
        "the conflict is named",
        lambda: one.client.call("status")["problems"],
    )
    assert "192.0.2.80:80/TCP belongs to default/web-0" in one.client.call("status")["problems"][problem]

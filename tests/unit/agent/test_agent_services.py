"""Services as the agent hears of them: from objects, from its pods, and for policies."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from axoneme.agent.config import load
from axoneme.agent.pods import Detach
from axoneme.agent.questions import Peer, Question
from axoneme.agent.services import AT_ONCE
from axoneme.rpc.listening import listening_at
from axoneme.services.compile import HealthCheck
from axoneme.services.facts import LocalPod, PodPort
from axoneme.sources.config import ConfigError
from axoneme.sources.store import Change

from .conftest import World

WEB = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
}


def slice_of(*endpoints: str, service: str = "web", **fields: object) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [each], **fields} for each in endpoints],
        "ports": [{"port": 8080}],
    }


def backends(world: World, port: str = "80/TCP", name: str = "default/web") -> set[str]:
    return {f"{each.address}" for each in world.balancer.told[name, port].backends}


async def hosting(world: World, app: str, *, ready: bool = False) -> None:
    """There is a pod with a host port."""
    port = {"containerPort": 8080, "hostPort": 80}
    pod = {
        "metadata": {"name": app, "namespace": "default", "labels": {"app": app}, "creationTimestamp": None},
        "spec": {"containers": [{"name": "c", "ports": [port]}]},
        "status": {"conditions": [{"type": "Ready", "status": f"{ready}"}]},
    }
    await world.tell("Pod", app, pod)


REDIRECT = {
    "metadata": {"name": "r", "namespace": "default"},
    "spec": {
        "redirectFrontend": {"serviceMatcher": {"serviceName": "web", "namespace": "default"}},
        "redirectBackend": {
            "localEndpointSelector": {"matchLabels": {"app": "cache"}},
            "toPorts": [{"port": "8080", "protocol": "TCP"}],
        },
    },
}


async def test_a_service_and_its_slice(world: World) -> None:
    await world.tell("Service", "web", WEB)
    await world.tell("EndpointSlice", "web-1", slice_of("10.0.0.9"))
    assert backends(world) == {"10.0.0.9"}
    await world.tell("EndpointSlice", "web-1", None)
    assert backends(world) == set()
    await world.tell("Service", "web", None)
    assert not world.balancer.told


async def test_a_slice_that_cannot_be_read_changes_nothing_and_is_told_of(world: World) -> None:
    await world.tell("Service", "web", WEB)
    await world.tell("EndpointSlice", "web-1", slice_of("10.0.0.9"))
    await world.tell("EndpointSlice", "web-1", slice_of("127.0.0.1"))
    assert backends(world) == {"10.0.0.9"}
    assert "loopback" in world.listener.problems["objects/EndpointSlice/default/web-1"]


async def test_the_zone_is_that_of_the_node_s_own_object(world: World) -> None:
    hinted = slice_of("10.0.0.9", hints={"forZones": [{"name": "a"}]})
    hinted["endpoints"] += slice_of("10.0.0.8", hints={"forZones": [{"name": "b"}]})["endpoints"]
    await world.tell("Service", "web", WEB)
    await world.tell("EndpointSlice", "web-1", hinted)

    def active() -> set[str]:
        found = world.balancer.told["default/web", "80/TCP"].backends
        return {f"{each.address}" for each in found if each.state.value == "active"}

    assert active() == {"10.0.0.8", "10.0.0.9"}
    for name, zone in (("node1", "a"), ("node2", "b")):
        node = {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}
        await world.tell("Node", name, node, namespace="_")
    assert active() == {"10.0.0.9"}


async def test_a_host_port_comes_and_goes_with_its_pod(world: World) -> None:
    await hosting(world, "web")
    attached = await world.attach("web")
    assert backends(world, "host:80/TCP") == {each.address for each in attached.addresses}
    await world.start_again()
    assert backends(world, "host:80/TCP") == {each.address for each in attached.addresses}
    await world.pods.detach(Detach("container-web", "eth0"))
    assert not world.balancer.told


async def test_a_redirect_follows_the_readiness_of_pods(world: World) -> None:
    await world.tell("Service", "web", WEB)
    await world.tell("EndpointSlice", "web-1", slice_of("10.0.0.9"))
    await world.tell("CiliumLocalRedirectPolicy", "r", REDIRECT)
    await hosting(world, "cache")
    attached = await world.attach("cache")
    assert backends(world) == {"10.0.0.9"}
    await hosting(world, "cache", ready=True)
    assert backends(world) == {each.address for each in attached.addresses}
    await world.start_again()
    assert backends(world) == {each.address for each in attached.addresses}


async def test_load_balancers_are_told_of_the_node_s_own_endpoints(world: World) -> None:
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}
    await world.tell("Service", "web", {**WEB, "spec": {**WEB["spec"], **spec}})
    await world.tell("EndpointSlice", "web-1", slice_of("10.0.0.9", nodeName="node1"))
    assert world.services._health._checks == {("default", "web"): HealthCheck(31000, 1)}


async def test_policies_mean_the_addresses_of_a_service_without_selector(world: World) -> None:
    await world.pod("web", app="web")
    await world.attach("web")
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "endpointSelector": {},
            "egress": [{"toServices": [{"k8sService": {"serviceName": "web", "namespace": "default"}}]}],
        },
    }

    async def may_reach(address: str) -> bool:
        question = Question("egress", "default/web", Peer(address=address), "TCP", 8080)
        return (await world.questions.evaluate(question)).allowed

    await world.tell("CiliumNetworkPolicy", "p", policy)
    await world.tell("Service", "web", WEB)
    assert not await may_reach("203.0.113.9")
    await world.tell("EndpointSlice", "web-1", slice_of("203.0.113.9"))
    assert await may_reach("203.0.113.9")
    await world.tell("EndpointSlice", "web-1", slice_of("203.0.113.8"))
    assert await may_reach("203.0.113.8") and not await may_reach("203.0.113.9")
    await world.tell("EndpointSlice", "web-1", slice_of("203.0.113.8", service="other"))
    assert not await may_reach("203.0.113.8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(":10256", ("", 10256)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::1]:10256", ("::1", 10256))],
)
def test_where_the_node_s_health_is_asked(text: str, expected: tuple[str, int]) -> None:
    assert listening_at(text, "load_balancing.healthz") == expected


@pytest.mark.parametrize("text", ["10256", "host:1", ":0", ":65536", "0.0.0.0:"])
def test_a_wrong_place_to_ask_is_refused_at_the_start(tmp_path: Any, text: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(f'node: a\ndirectory: /x\nstore: {{path: s}}\nload_balancing: {{healthz: "{text}"}}\n')
    with pytest.raises(ConfigError):
        load(path)


async def test_many_services_are_settled_part_by_part_and_a_pod_of_this_node_goes_before_them(
    world: World,
) -> None:
    told = []
    settle = world.balancer.settle

    def counting() -> int:
        told.append(len(world.balancer.told))
        return settle()

    world.balancer.settle = counting  # type: ignore[method-assign]
    settling = asyncio.create_task(world.services.keep_settled())
    many = 2 * AT_ONCE + 1
    changes = []
    for number in range(many):
        name = f"web-{number}"
        metadata, spec = WEB["metadata"] | {"name": name}, WEB["spec"] | {"clusterIP": f"10.96.1.{number}"}
        slice_ = slice_of("10.0.0.9", service=name)
        slice_["metadata"]["name"] = f"{name}-1"
        for kind, each in (("Service", {"metadata": metadata, "spec": spec}), ("EndpointSlice", slice_)):
            key = f"objects/{kind}/default/{each['metadata']['name']}"
            changes.append(Change(key, msgspec.json.encode(each), 1))
    await world.listener.take(changes)
    ports = (PodPort(8080, host_port=80),)
    world.services.pod_here(LocalPod("default", "cache", (ip_address("10.0.0.8"),), {}, ports))
    async with asyncio.timeout(30):
        while len(world.balancer.told) < many + 1:
            await asyncio.sleep(0)
    settling.cancel()
    assert told[:1] == [1] and told[1:4] == [AT_ONCE + 1, 2 * AT_ONCE + 1, many + 1]
    assert all(backends(world, name=f"default/web-{number}") for number in range(many))

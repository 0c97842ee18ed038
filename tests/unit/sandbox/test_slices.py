"""EndpointSlices: whatever happens to pods, the slices say who is there, in few writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.model import documents
from axoneme.sandbox.objects import Node, ObjectKey, Pod, Service, read
from axoneme.sandbox.services import slices
from axoneme.sandbox.services.slices import Conditions, Endpoint, EndpointSlice, SliceChanges, reconcile
from axoneme.sandbox.workloads.changes import Surroundings

Document = dict[str, Any]


def surroundings() -> Surroundings:
    numbers = itertools.count()
    return Surroundings(
        "2026-01-01T00:00:00Z", lambda: f"{next(numbers):05d}", lambda: f"uid-{next(numbers)}"
    )


def service(labels: dict[str, str] | None = None, **spec: object) -> Service:
    fields = {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
        "clusterIP": "10.96.1.1",
        "ipFamilies": ["IPv4"],
        **spec,
    }
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web", "labels": labels or {}}
    return read(msgspec.json.encode({"metadata": metadata, "spec": fields}), Service)


def pod(number: int, *, ready: bool = True, going: bool = False, port: int = 8080, **spec: object) -> Pod:
    metadata: Document = {"name": f"pod-{number:03d}", "namespace": "default", "uid": f"uid-pod-{number}"}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    addresses = [f"10.0.{number // 250}.{number % 250}", f"fd00::{number:x}"]
    return read(
        msgspec.json.encode(
            {
                "metadata": {**metadata, "labels": {"app": "web"}},
                "spec": {
                    "nodeName": f"node{number % 2 + 1}",
                    "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}],
                    **spec,
                },
                "status": {
                    "phase": "Running",
                    "podIP": addresses[0],
                    "podIPs": [{"ip": each} for each in addresses],
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            }
        ),
        Pod,
    )


def node(name: str, **labels: str) -> Node:
    return read(msgspec.json.encode({"metadata": {"name": name, "labels": labels}}), Node)


NODES = {
    "node1": node("node1", **{slices.ZONE: "east"}),
    "node2": node("node2"),
}


class Slices:
    """Those in the store."""

    def __init__(self) -> None:
        self.stored: dict[ObjectKey, bytes] = {}
        self._around = surroundings()

    def list(self) -> list[EndpointSlice]:
        return [read(each, EndpointSlice) for each in self.stored.values()]

    def settle(self, wanted: Service, pods: Iterable[Pod]) -> SliceChanges:
        """Applies what is to be done, after which nothing may be left to do."""
        pods = list(pods)
        changes = reconcile(wanted, pods, NODES, self.list(), self._around)
        for new in changes.create:
            assert new.key not in self.stored
            self.stored[new.key] = new.document
        for each in changes.update:
            self.stored[each.key] = slices.changed(self.stored[each.key], each)
        for gone in changes.delete:
            del self.stored[gone]
        again = reconcile(wanted, pods, NODES, self.list(), self._around)
        assert again == SliceChanges()
        return changes

    def endpoints(self, family: str = "IPv4") -> list[Endpoint]:
        return [each for found in self.list() if found.address_type == family for each in found.endpoints]

    def only(self) -> Document:
        (document,) = self.stored.values()
        return msgspec.json.decode(document)  # type: ignore[no-any-return]


def test_a_slice_is_what_a_cluster_makes_of_it() -> None:
    found = Slices()
    found.settle(service({"team": "a", slices.MANAGED_BY: "someone"}), [pod(0)])
    made = found.only()
    assert made.pop("metadata") == {
        "name": "web-00000",
        "namespace": "default",
        "uid": "uid-1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generateName": "web-",
        "labels": {
            "team": "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        },
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "name": "web",
                "uid": "uid-web",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert made == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [
            {
                "addresses": ["10.0.0.0"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {
                    "kind": "Pod",
                    "namespace": "default",
                    "name": "pod-000",
                    "uid": "uid-pod-0",
                },
                "nodeName": "node1",
                "zone": "east",
            }
        ],
    }


@pytest.mark.parametrize(
    ("ready", "going", "publish", "expected"),
    [
        (True, False, False, Conditions(ready=True, serving=True, terminating=False)),
        (False, False, False, Conditions(ready=False, serving=False, terminating=False)),
        (True, True, False, Conditions(ready=False, serving=True, terminating=True)),
        (False, True, False, Conditions(ready=False, serving=False, terminating=True)),
        (False, False, True, Conditions(ready=True, serving=False, terminating=False)),
        (True, True, True, Conditions(ready=True, serving=True, terminating=True)),
    ],
)
def test_conditions(ready: bool, going: bool, publish: bool, expected: Conditions) -> None:
    found = Slices()
    wanted = service(publishNotReadyAddresses=publish)
    found.settle(wanted, [pod(1, ready=ready, going=going)])
    assert [each.conditions for each in found.endpoints()] == [expected]


def test_finished_pods_and_pods_without_address_are_not_there() -> None:
    done = msgspec.structs.replace(pod(1), status=msgspec.structs.replace(pod(1).status, phase="Succeeded"))
    new = msgspec.structs.replace(pod(2), status=type(pod(2).status)())
    found = Slices()
    found.settle(service(), [done, new])
    assert [(each.endpoints, each.ports) for each in found.list()] == [((), ())]


def test_each_family_of_the_service_has_its_slices() -> None:
    found = Slices()
    found.settle(service(ipFamilies=["IPv6", "IPv4"]), [pod(1)])
    assert [each.addresses for each in found.endpoints("IPv4")] == [("10.0.0.1",)]
    assert [each.addresses for each in found.endpoints("IPv6")] == [("fd00::1",)]


def test_pods_whose_named_port_has_another_number_have_another_slice() -> None:
    found = Slices()
    found.settle(service(), [pod(1), pod(2, port=9090), pod(3)])
    ports = {each.ports[0].port: len(each.endpoints) for each in found.list()}
    assert ports == {8080: 2, 9090: 1}


def test_names_of_pods_of_a_headless_service() -> None:
    found = Slices()
    wanted = service(clusterIP="None", ports=[])
    found.settle(wanted, [pod(1, hostname="web-0", subdomain="web"), pod(2, hostname="b", subdomain="other")])
    assert sorted(each.hostname for each in found.endpoints()) == ["", "web-0"]
    assert found.only()["metadata"]["labels"][slices.HEADLESS] == ""
    assert found.only()["ports"] == []


@pytest.mark.parametrize(
    ("wish", "zones", "nodes"),
    [("", [], []), ("PreferClose", ["east"], []), ("PreferSameNode", ["east"], ["node1"])],
)
def test_hints(wish: str, zones: list[str], nodes: list[str]) -> None:
    found = Slices()
    found.settle(service(trafficDistribution=wish), [pod(2)])
    (endpoint,) = found.endpoints()
    hints = endpoint.hints or slices.Hints()
    assert [each.name for each in hints.for_zones] == zones
    assert [each.name for each in hints.for_nodes] == nodes


def test_changes_cost_one_write_each() -> None:
    found, wanted = Slices(), service()
    pods = [pod(number) for number in range(250)]
    assert found.settle(wanted, pods).writes == 3
    assert sorted(len(each.endpoints) for each in found.list()) == [50, 100, 100]
    pods[7] = pod(7, ready=False)
    assert found.settle(wanted, pods).writes == 1
    assert found.settle(wanted, [*pods, pod(300)]).writes == 1
    assert found.settle(wanted, pods).writes == 1
    fewer = [each for each in pods if each.metadata.name != "pod-003"]
    assert found.settle(wanted, fewer).writes == 1
    # The one that comes takes the place of the one that went: still one write.
    assert found.settle(wanted, [*fewer[1:], pod(301)]).writes == 1


def test_a_replacement_of_all_pods_is_one_write() -> None:
    found = Slices()
    found.settle(service(), [pod(1), pod(2)])
    assert found.settle(service(), [pod(3), pod(4)]).writes == 1


def test_slices_of_others_are_not_ours() -> None:
    found, wanted = Slices(), service()
    found.settle(wanted, [pod(1)])
    (made,) = found.list()
    assert slices.ours(made, wanted)
    document = next(iter(found.stored.values()))
    other = documents.with_field(document, ("metadata", "labels", slices.MANAGED_BY), "me")
    assert not slices.ours(read(other, EndpointSlice), wanted)
    former = documents.with_field(document, ("metadata", "ownerReferences"), [])
    assert not slices.ours(read(former, EndpointSlice), wanted)


def test_a_service_without_selector_has_none() -> None:
    found = Slices()
    found.settle(service(), [pod(1)])
    found.settle(service(selector={}), [])
    assert not found.stored
    found.settle(service(type="ExternalName"), [pod(1)])
    assert not found.stored


@given(
    st.lists(
        st.dictionaries(
            st.integers(0, 260),
            st.tuples(st.booleans(), st.booleans(), st.sampled_from([80, 81])),
            max_size=260,
        ),
        max_size=5,
    )
)
def test_slices_come_to_what_pods_are(states: list[dict[int, tuple[bool, bool, int]]]) -> None:
    found, wanted = Slices(), service(ipFamilies=["IPv4", "IPv6"])
    for state in states:
        pods = [
            pod(number, ready=ready, going=going, port=port) for number, (ready, going, port) in state.items()
        ]
        found.settle(wanted, pods)
        for family in ("IPv4", "IPv6"):
            seen = {
                each.pod: (each.conditions.serving, each.conditions.terminating, of.ports[0].port)
                for of in found.list()
                if of.address_type == family
                for each in of.endpoints
            }
            assert seen == {f"uid-pod-{number}": told for number, told in state.items()}
            assert len(found.endpoints(family)) == len(state)
        assert all(len(each.endpoints) <= slices.MOST for each in found.list())
        assert all(each.endpoints for each in found.list()) or not state

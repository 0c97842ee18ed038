"""`axo service`: the words of several nodes as one, shown and as documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import yaml

from axoneme.sandbox import planfile
from axoneme.sandbox.plan import Plan

from .conftest import Axo, Sandbox, serving

CLUSTER_IP = {"address": "10.96.0.7", "port": 80, "type": "ClusterIP"}
NODE_PORT = {"address": "0.0.0.0", "port": 30080, "type": "NodePort", "external": True}


def backend(number: int, address: str, services: tuple[int, ...], **more: Any) -> dict[str, Any]:
    place = {"address": address, "port": 8080}
    return {"number": number, "services": services, **place, "state": "active", **more}


def service(name: str, *backends: dict[str, Any], numbers: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "port": "http",
        "protocol": "TCP",
        "numbers": numbers,
        "frontends": [CLUSTER_IP, NODE_PORT],
        "backends": backends,
        **more,
    }


def flowed(service: int, backend: int, open_: int, sent: int, received: int) -> dict[str, Any]:
    counts = {"connections": open_, "packets": 1, "bytes": sent, "reply_packets": 2, "reply_bytes": received}
    return {"service": service, "backend": backend, "open": counts, "ended": {**counts, "connections": 50}}


#: The two nodes have given the same service and backends other numbers.
NODES = {
    "node1": (
        [
            service(
                "shop/web",
                backend(3, "10.244.1.5", (1, 2), name="shop/web-a", node="node1", chosen=10),
                backend(4, "10.244.2.6", (1,), name="shop/web-b", node="node2", state="leaving", chosen=2),
                numbers=(1, 2),
                affinity=600,
            ),
            service("data/db", numbers=(5,), refused=7),
        ],
        [flowed(1, 3, 2, 1000, 20000), flowed(2, 3, 1, 10, 20), flowed(9, 3, 5, 1, 1)],
    ),
    "node2": (
        [
            service("data/db", numbers=(1,), refused=1, problem="port 80 of 10.96.0.7 is data/other's"),
            service("shop/web", backend(1, "10.244.1.5", (2,), chosen=5), numbers=(2,)),
        ],
        [flowed(2, 1, 4, 100, 200)],
    ),
}


@contextmanager
def running(sandbox: Sandbox, silent: tuple[str, ...] = ()) -> Iterator[None]:
    """``silent``: nodes whose flow server does not answer."""
    planfile.save(Plan(name="default"), sandbox.layout)
    with ExitStack() as stack:
        for node, (services, traffic) in NODES.items():
            files = sandbox.layout.node(node)
            answers = {"services": lambda _, said=services: said}
            stack.enter_context(serving(files.agent_socket, answers))  # type: ignore[arg-type]
            if node not in silent:
                counted = {"services.traffic": lambda _, said=traffic: said}
                stack.enter_context(serving(files.flows_socket, counted))  # type: ignore[arg-type]
        yield


def test_nodes_words_are_added_up_by_name_and_address_not_by_number(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("service", "list")
        documents = axo("service", "list", "-o", "json").json
    assert found.code == 0
    assert found.cells[1][:4] == ["data/db", "http", "ClusterIP,NodePort", "10.96.0.7:80,*:30080"]
    assert found.cells[1][4:] == ["0", "0", "0", "8", "0", "B", "0", "B"]
    assert found.cells[2][0] == "shop/web"
    assert "1+1 leaving" in found.lines[2]
    assert found.cells[2][6:] == ["7", "17", "0", "2.2", "kB", "40.4", "kB"]
    web = documents[1]
    assert [each["address"] for each in web["backends"]] == ["10.244.1.5", "10.244.2.6"]
    assert web["backends"][0]["traffic"]["open"] == 7
    assert (web["backends"][0]["chosen"], web["backends"][1]["chosen"]) == (15, 2)
    assert web["backends"][1]["seen_by"] == ["node1"]


def test_a_backend_that_each_node_has_for_other_callers_counts_once(
    axo: Axo, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``externalTrafficPolicy: Local``: its own node has it for all, others for callers within."""
    near = service("shop/web", backend(1, "10.244.1.5", (1, 2)), numbers=(1, 2))
    far = service("shop/web", backend(1, "10.244.1.5", (1,), callers="inside"), numbers=(1, 2))
    monkeypatch.setitem(NODES, "node1", ([near], []))
    monkeypatch.setitem(NODES, "node2", ([far], []))
    with running(sandbox):
        found = axo("service", "list")
        assert len(axo("service", "list", "-o", "json").json[0]["backends"]) == 2
    assert found.cells[1][4] == "1"


def test_one_node_s_view(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        assert axo("service", "list", "--node", "node2", "-o", "json").json[1]["chosen"] == 5
        refused = axo("service", "list", "--node", "nope")
    assert refused.code == 2
    assert "node1, node2" in refused.err


def test_all_that_is_known_of_one(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("service", "get", "shop/web")
        in_namespace = axo("service", "get", "-n", "shop", "web")
        as_yaml = axo("service", "get", "shop/web", "-o", "yaml")
    assert found.code == 0
    assert found.lines[0] == "shop/web http (TCP): random; a client keeps its backend for 600 s"
    assert ["*:30080", "NodePort", "everybody"] in found.cells
    assert ["10.96.0.7:80", "ClusterIP", "the", "cluster"] in found.cells
    row = next(cells for cells in found.cells if cells[:1] == ["10.244.1.5:8080"])
    assert row[1:7] == ["shop/web-a", "node1", "active", "1", "7", "15"]
    assert in_namespace.out == found.out
    assert yaml.safe_load(as_yaml.out)[0]["affinity"] == 600


def test_what_is_wrong(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("service", "list", "--problems")
        get = axo("service", "get", "data/db")
    assert found.code == 1
    assert "shop/web" not in found.out
    assert "data/db http: node node2: port 80 of 10.96.0.7 is data/other's" in found.lines
    assert "data/db http: no backend takes connections: they are refused" in found.lines
    assert "8 connections were refused for want of a backend" in get.lines


def test_a_service_that_nobody_balances(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        found = axo("service", "get", "shop/web", "nothing")
    assert found.code == 1
    assert found.lines[0].startswith("shop/web")
    assert "no node balances default/nothing" in found.err


def test_without_a_flow_server_what_flows_is_not_known_and_not_zero(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox, silent=("node1", "node2")):
        found = axo("service", "list")
    assert found.code == 1
    assert "what goes to backends is not known" in found.err
    assert found.cells[2][6:] == ["-", "17", "0", "-", "-"]


@pytest.mark.parametrize("arguments", [["list"], ["get", "shop/web"]])
def test_no_agent_at_all(axo: Axo, sandbox: Sandbox, arguments: list[str]) -> None:
    found = axo("service", *arguments)
    assert found.code == 1
    assert "no node's agent tells of services" in found.err


def test_a_namespace_s_services(axo: Axo, sandbox: Sandbox) -> None:
    with running(sandbox):
        assert [cells[0] for cells in axo("service", "list", "-n", "data").cells[1:]] == ["data/db"]

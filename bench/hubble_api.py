"""Flows a second from the ring to clients of Hubble's API over a unix socket, and what one costs the server.

The server is a process with a full ring and nothing else to do; each client asks for all of it at once. With
clients on the same two cores the slower side shows: the server's own part is in the last column.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import flows_decode

import gotools
from axoneme.datapath.schema import Schema
from axoneme.flows.events import Vocabulary, record_dtype, stamp
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End, Names
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.status import Status
from axoneme.flows.store import FlowStore
from axoneme.flowserver.hubbleobserver import HubbleObserver
from axoneme.flowserver.observe import Bell, Reader
from axoneme.hubble.address import Address
from axoneme.hubble.client import connect
from axoneme.hubble.parts import Site
from axoneme.hubble.schema import message
from axoneme.hubble.serving import Server
from axoneme.model.policy import PolicyRef

FLOWS = 131_072
ROUNDS = 3
REQUEST = message("observer.GetFlowsRequest")
#: What the hubble command asks for, when it prints lines.
USUAL = [
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
]


# ---- the server ------------------------------------------------------------------------------------


def full_log() -> FlowLog:
    """200 pods, each with the labels that a pod has; every connection by a policy, most by a service."""
    schema = Schema.load()
    vocabulary = Vocabulary.read(schema.struct("event"), schema.enums)
    names = Names(vocabulary.reserved, vocabulary.first_local)
    for number in range(200):
        labels = (
            f"k8s:app=web-{number % 50}",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:io.kubernetes.pod.namespace=shop",
        )
        end = End(labels, "shop", f"web-{number}-t265mw56lf-bckh2", "Deployment", f"web-{number}", "node1")
        names.put(f"pod-{number}", [flows_decode.pod(number)], end)
    services = ServiceNames()
    for number in range(flows_decode.SERVICES):
        services.put(number + 1, ServicePort(f"shop/service-{number}", "http"))
    store = FlowStore(record_dtype(vocabulary.event), FLOWS, 4096)
    for seed in range(FLOWS // flows_decode.BATCH):
        records = stamp(flows_decode.events(vocabulary, seed), store.dtype, time.time_ns(), seed * 10**9)
        names.resolve(records)
        store.flows.append(records)

    def rules(number: int) -> tuple[PolicyRef, ...]:
        return (PolicyRef("NetworkPolicy", "shop", f"policy-{number}", "spec.ingress[0]"),)

    return FlowLog("node1", store, names, rules, services, Requests(), vocabulary)


async def serve(path: str) -> None:
    site = Site("node1", "default", ("kubernetes.io/hostname=node1",), "0.1.0")

    async def status() -> Status:
        raise NotImplementedError

    async def events(_: Any) -> Any:
        raise NotImplementedError
        yield

    reader = Reader(full_log(), Bell(), lambda: (time.monotonic_ns(), time.time_ns()))
    observer = HubbleObserver(reader, lambda: site, status, time.time_ns, dict)
    server = Server([observer.service(events)], "hubble-server-version")
    await server.serve(Address(path=Path(path)), ready=lambda _: print("ready", flush=True))


# ---- the clients -----------------------------------------------------------------------------------


def python_bytes(address: str) -> int:
    return asyncio.run(_read(address, REQUEST(number=FLOWS), lambda client: client.flow_bytes))


def python_messages(address: str) -> int:
    return asyncio.run(_read(address, REQUEST(number=FLOWS), lambda client: client.flows))


def python_usual(address: str) -> int:
    request = REQUEST(number=FLOWS, field_mask={"paths": USUAL})
    return asyncio.run(_read(address, request, lambda client: client.flow_bytes))


async def _read(address: str, request: Any, way: Callable[[Any], Any]) -> int:
    count = 0
    async with connect(address) as client:
        async for _ in way(client)(request):
            count += 1
    return count


def go_messages(address: str) -> int:
    done = subprocess.run(
        [gotools.FOLDER / "hubble_count", address, str(FLOWS)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[0])


def hubble(*output: str) -> Callable[[str], int]:
    def run(address: str) -> int:
        command = [gotools.FOLDER / "hubble", "observe", "--server", address, "--last", str(FLOWS), *output]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        return done.stdout.count(b"\n")

    return run


CLIENTS: dict[str, Callable[[str], int]] = {
    "Go, every field": go_messages,
    "Python, every field, as bytes": python_bytes,
    "Python, every field, as messages": python_messages,
    "Python, the fields of a line, as bytes": python_usual,
    "`hubble observe -o jsonpb`, every field": hubble("-o", "jsonpb"),
    "`hubble observe`, lines": hubble(),
}


def cpu_of(process: subprocess.Popen[str]) -> float:
    """Seconds so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    for name in ("hubble", "hubble_count"):
        gotools.build(name)
    print("| client | flows/s (min, median, max) | of the server's CPU: us a flow |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/hubble.sock"
        with subprocess.Popen(
            [sys.executable, __file__, "serve", path], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout
            server.stdout.readline()
            for name, client in CLIENTS.items():
                rates, costs = [], []
                for _ in range(ROUNDS):
                    before, began = cpu_of(server), time.monotonic()
                    count = client(f"unix://{path}")
                    took = time.monotonic() - began
                    assert count == FLOWS, f"{name}: {count} of {FLOWS}"
                    rates.append(count / took)
                    costs.append((cpu_of(server) - before) / count * 1e6)
                rates.sort()
                shown = ", ".join(f"{rate:,.0f}" for rate in rates)
                print(f"| {name} | {shown} | {sorted(costs)[ROUNDS // 2]:.1f} |", flush=True)
            server.terminate()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"\n{FLOWS:,} flows each time, nothing lost. Largest process: {peak} MiB.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(sys.argv[2]))
    else:
        main()

"""A sandbox for tests: made with a fake agent, filled from YAML, looked at, and removed whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from axoneme.rpc import Client, RpcError
from axoneme.sandbox import lifecycle
from axoneme.sandbox.client import Probe, ProbeResult, Protocol, probe_all
from axoneme.sandbox.layout import OUTSIDE, Layout
from axoneme.sandbox.objects import ObjectKey
from axoneme.sandbox.plan import Plan
from axoneme.sandbox.report import SandboxReport
from axoneme.sources.sqlite import SqliteStore
from axoneme.sources.store import Store

T = TypeVar("T")

#: Kubernetes' objects as they stand in the store.
Document = dict[str, Any]

_FAKE = (sys.executable, str(Path(__file__).with_name("fake_agent.py")))
_CLUSTER_WIDE = {
    "Namespace",
    "Node",
    "CiliumClusterwideNetworkPolicy",
    "CiliumLoadBalancerIPPool",
    "CiliumL2AnnouncementPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
}


def plan(name: str, **more: Any) -> Plan:
    """A plan whose nodes run the fake agent; the name gets this process's number. Without a cluster DNS
    unless it is asked for."""
    more = {"dns": False, **more}
    return Plan(
        name=f"test-{name}-{os.getpid()}",
        agent_command=(*_FAKE, "agent", "--config"),
        flows_command=(*_FAKE, "flows", "--config"),
        **more,
    )


def key_of(document: Document) -> ObjectKey:
    metadata = document["metadata"]
    namespace = "" if document["kind"] in _CLUSTER_WIDE else metadata.get("namespace", "default")
    return ObjectKey(document["kind"], namespace, metadata["name"])


def populate(text: str) -> lifecycle.Populate:
    """Writes all objects of a YAML text, as `axo apply` would: status and identity are kept."""

    async def write(store: Store) -> int:
        revision = 0
        for document in yaml.safe_load_all(text):
            path = key_of(document).path()
            there = await store.get(path)
            if there is not None:
                before = json.loads(there.value)
                document["metadata"] = {**before["metadata"], **document["metadata"]}
                document["status"] = before.get("status", {})
            revision = await store.put(path, json.dumps(document).encode())
        return revision

    return write


class Runtime:
    """One sandbox under test."""

    def __init__(self, wanted: Plan) -> None:
        self.plan = wanted
        self.name = wanted.name
        self.layout = Layout(wanted.name)

    def up(self, text: str = "", deadline: float = 20.0) -> SandboxReport:
        return lifecycle.up(self.plan, populate(text) if text else None, deadline=deadline)

    # ---- objects -----------------------------------------------------------------------------------

    def store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            store = SqliteStore(self.layout.store)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def apply(self, text: str) -> None:
        self.store(populate(text))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        namespace = "" if kind in _CLUSTER_WIDE else namespace
        self.store(lambda store: store.delete(ObjectKey(kind, namespace, name).path()))

    def change(self, kind: str, name: str, change: Callable[[Document], None]) -> None:
        """Changes an object as a client with optimistic locking does."""
        path = ObjectKey(kind, "" if kind in _CLUSTER_WIDE else "default", name).path()

        async def work(store: Store) -> None:
            from axoneme.sources.store import Conflict, Put

            while True:
                entry = await store.get(path)
                assert entry is not None, path
                document = json.loads(entry.value)
                change(document)
                try:
                    await store.transact({path: entry.revision}, [Put(path, json.dumps(document).encode())])
                    return
                except Conflict:
                    continue

        self.store(work)

    def get(self, kind: str, name: str, namespace: str = "default") -> Document | None:
        namespace = "" if kind in _CLUSTER_WIDE else namespace
        entry = self.store(lambda store: store.get(ObjectKey(kind, namespace, name).path()))
        return json.loads(entry.value) if entry else None

    def every(self, kind: str) -> list[Document]:
        listing = self.store(lambda store: store.list(f"objects/{kind}/"))
        return [json.loads(entry.value) for entry in listing.entries]

    def pods(self, **labels: str) -> list[Document]:
        """Those with these labels; without any labels, all that are not the cluster's own."""
        return [
            pod
            for pod in self.every("Pod")
            if (labels or pod["metadata"]["namespace"] != "kube-system")
            and labels.items() <= pod["metadata"].get("labels", {}).items()
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def pod(self, name: str, namespace: str = "default") -> Document:
        found = self.get("Pod", name, namespace)
        assert found is not None, f"there is no pod {name}"
        return found

    # ---- waiting -----------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], T | None], what: str, timeout: float = 15.0) -> T:
        """What `condition` says, once it says something."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout} s\n{self.log()}"
            time.sleep(0.02)
        return found

    def settle(self) -> SandboxReport:
        """Waits until everything is ready."""

        def ready() -> SandboxReport | None:
            report = lifecycle.status(self.name)
            return report if report.ready else None

        return self.wait(ready, "everything is ready")

    def log(self) -> str:
        path = self.layout.logs / "supervisor.log"
        return path.read_text()[-4000:] if path.exists() else "(no log)"

    # ---- the network -------------------------------------------------------------------------------

    def namespace(self, pod: str | Document, namespace: str = "default") -> Path:
        document = self.pod(pod, namespace) if isinstance(pod, str) else pod
        return self.layout.pod_namespace(document["metadata"]["uid"])

    @property
    def outside(self) -> Path:
        return self.layout.namespace(OUTSIDE)

    def probe(
        self,
        source: Path,
        address: str,
        port: int,
        protocol: Protocol = Protocol.TCP,
        payload: bytes = b"hello\n",
        timeout: float = 3.0,
    ) -> ProbeResult:
        return self.probe_all([Probe(source, address, port, protocol, timeout, payload)])[0]

    def probe_all(self, wishes: list[Probe]) -> list[ProbeResult]:
        return asyncio.run(probe_all(wishes))


def addresses(pod: Document) -> list[str]:
    return [each["ip"] for each in pod["status"]["podIPs"]]


def ready(pod: Document | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def container(pod: Document, name: str | None = None) -> Document:
    statuses: list[Document] = pod["status"].get("containerStatuses", [])
    return next(each for each in statuses if name in {None, each["name"]})


@contextmanager
def sandbox(name: str, text: str = "", **more: Any) -> Iterator[Runtime]:
    """A sandbox with the stand-in for the agent."""
    with _made(Runtime(plan(name, **more)), text) as runtime:
        yield runtime


class Live(Runtime):
    """And what its agents and flow servers are asked."""

    def agent(self, node: str) -> Client:
        return Client(self.layout.node(node).agent_socket)

    def agents(self) -> list[Client]:
        return [self.agent(node.name) for node in self.plan.all_nodes()]

    def agent_pid(self, node: str) -> int:
        return int(self.agent(node).call("status")["pid"])

    def kill_agents(self) -> list[int]:
        """Kills every agent; their process numbers."""
        pids = [self.agent_pid(node.name) for node in self.plan.all_nodes()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def wait_for_new_agents(self, dead: list[int]) -> None:
        def ready() -> bool:
            try:
                found = [agent.call("status") for agent in self.agents()]
            except RpcError:
                return False
            return all(each["phase"] == "ready" and each["pid"] not in dead for each in found)

        self.wait(ready, "new agents are ready", 60)

    def policies_loaded(self, count: int) -> None:
        """Waits until every agent has heard of so many objects with policies."""
        self.wait(
            lambda: all(agent.call("status")["policies"] == count for agent in self.agents()) or None,
            f"{count} policies at every agent",
        )

    def endpoints(self) -> dict[str, Document]:
        """What the agents say about their pods, by name, those of the cluster itself left out."""
        return {
            f"{each['namespace']}/{each['pod']}": each
            for agent in self.agents()
            for each in agent.call("endpoint.list")
            if each["namespace"] != "kube-system"
        }

    def why(self, source: Document, destination: Document, port: int, protocol: str = "TCP") -> bool:
        """Whether both ends' policies allow it: endpoints as `endpoints` has them."""
        verdicts = [
            self.agent(subject["node"]).call(
                "policy.evaluate",
                {
                    "direction": direction,
                    "subject": f"{subject['namespace']}/{subject['pod']}",
                    "peer": {"identity": peer["identity"]},
                    "protocol": protocol,
                    "port": port,
                },
            )["allowed"]
            for direction, subject, peer in (
                ("egress", source, destination),
                ("ingress", destination, source),
            )
        ]
        return all(verdicts)

    def flows(self, **request: Any) -> list[Document]:
        """The flows that the nodes have kept."""
        return [
            item["flow"]
            for node in self.plan.all_nodes()
            for item in Client(self.layout.node(node.name).flows_socket).stream("flows.observe", request)
            if "flow" in item
        ]


R = TypeVar("R", bound=Runtime)


@contextmanager
def live(name: str, text: str = "", **more: Any) -> Iterator[Live]:
    """A sandbox with the real agent and datapath."""
    with live_as(Live, name, text, **more) as runtime:
        yield runtime


@contextmanager
def live_as(kind: type[R], name: str, text: str = "", **more: Any) -> Iterator[R]:
    """The same as a ``kind`` of one's own."""
    with _made(kind(Plan(name=f"test-{name}-{os.getpid()}", **more)), text) as runtime:
        yield runtime


@contextmanager
def _made(runtime: R, text: str) -> Iterator[R]:
    try:
        runtime.up(text)
        yield runtime
    finally:
        lifecycle.down(runtime.name)

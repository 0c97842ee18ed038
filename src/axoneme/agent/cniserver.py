"""The agent's other socket: container runtimes' requests, brought by ``axo-cni`` (CNI 1.1).

A request that is repeated is answered as the first time; one to remove what is not there succeeds. What
fails is answered with a code of the specification, so that the runtime knows whether to try again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from axoneme.agent.api import Readiness
from axoneme.agent.cnisocket import Message, Namespace, receive
from axoneme.agent.endpoints import EndpointRecord, EndpointTable
from axoneme.agent.pods import Attach, Attached, Detach, Pods, attached
from axoneme.cni.request import ANNOTATIONS, LATEST, CniError, Code, Request, parse
from axoneme.cni.result import Interface, failure, success
from axoneme.ipam.pool import PoolExhausted
from axoneme.net import pods as links
from axoneme.net.commands import NetworkError
from axoneme.net.pods import GATEWAY_MAC
from axoneme.rpc import NOT_FOUND, UNAVAILABLE, RpcError
from axoneme.sources.store import Unavailable

log = logging.getLogger(__name__)


class CniServer:
    """Serves the socket at ``path``."""

    def __init__(self, path: Path, readiness: Readiness, pods: Pods, endpoints: EndpointTable) -> None:
        self._path = path
        self._readiness = readiness
        self._pods = pods
        self._endpoints = endpoints

    async def serve(self) -> None:
        """Until cancelled."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = self._path.with_name(f".{self._path.name}")
        draft.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as server:
            server.setblocking(False)
            server.bind(str(draft))
            draft.chmod(0o600)
            server.listen(128)
            draft.rename(self._path)  # complete, and in the place of one that a killed agent left
            async with asyncio.TaskGroup() as clients:
                while True:
                    connection, _ = await loop.sock_accept(server)
                    clients.create_task(self._client(connection))

    async def _client(self, connection: socket.socket) -> None:
        with connection:
            try:
                code, answer = await self._answer(connection)
                text = msgspec.json.encode(answer) + b"\n" if answer is not None else b""
                connection.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(connection, bytes([code]) + text)
            except OSError as error:
                log.debug("a runtime went away: %s", error)

    async def _answer(self, connection: socket.socket) -> tuple[int, object]:
        """OSError: the connection has broken."""
        version = LATEST
        message: Message | None = None
        try:
            message = await asyncio.to_thread(receive, connection)
            request = parse(message.environment, message.text)
            version = request.config.cni_version
            return 0, await self._do(request, message.namespace())
        except CniError as error:
            return 1, failure(version, error)
        except PoolExhausted as error:
            return 1, failure(version, CniError(Code.FAILED, str(error)))
        except RpcError as error:
            code = Code.TRY_AGAIN_LATER if error.code == UNAVAILABLE else Code.FAILED
            return 1, failure(version, CniError(code, error.message))
        except Unavailable as error:
            return 1, failure(version, CniError(Code.TRY_AGAIN_LATER, str(error)))
        except NetworkError as error:
            return 1, failure(version, CniError(Code.FAILED, str(error)))
        except Exception as error:
            if message is None and isinstance(error, OSError):
                raise
            log.exception("a CNI request failed")
            return 1, failure(version, CniError(Code.FAILED, f"{type(error).__name__}: {error}"))
        finally:
            if message is not None:
                message.close()

    async def _do(self, request: Request, namespace: Namespace | None) -> object:
        if request.command == "STATUS":
            self._status()
            return None
        await self._readiness.wait(request.config.timeout)
        if request.command == "ADD":
            return await self._add(request, namespace)
        if request.command == "CHECK":
            await self._check(request, namespace)
            return None
        commands: dict[str, Callable[[Request], Any]] = {"DEL": self._del, "GC": self._gc}
        return await commands[request.command](request)

    # ---- commands ------------------------------------------------------------------------------

    def _status(self) -> None:
        if not self._readiness.ready:
            waits_for = self._readiness.waits_for
            raise CniError(Code.NOT_AVAILABLE, f"the agent is starting: it waits for {waits_for}")
        if self._pods.broken:
            message = "the kernel has refused a part of the policy tables; it is tried again"
            raise CniError(Code.LIMITED_CONNECTIVITY, message, "the agent's log says more")
        if full := self._pods.exhausted():
            raise CniError(Code.NOT_AVAILABLE, full, "remove containers, or give the node a larger pod range")

    async def _add(self, request: Request, namespace: Namespace | None) -> object:
        if request.config.prev_result is not None:
            raise CniError(
                Code.INVALID_CONFIG,
                "prevResult is there",
                "axo-cni makes the interface: put it first",
            )
        if namespace is None:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {request.netns} cannot be opened")
        record = self._record(request)
        if record is not None and record.network != request.config.name:
            raise CniError(
                Code.FAILED,
                f"{request.ifname} of container {request.container_id} is of network {record.network}",
                "remove it from there first",
            )
        if record is not None and not await self._faults(record, request, namespace):
            answer = attached(record)
        else:
            if record is not None:  # its former network namespace has gone without a DEL
                await self._pods.detach(Detach(request.container_id, request.ifname))
            pod_namespace, name = request.pod
            answer = await self._pods.attach(
                Attach(
                    container_id=request.container_id,
                    netns=str(namespace.path),
                    ifname=request.ifname,
                    namespace=pod_namespace,
                    pod=name,
                    uid=request.args.get("K8S_POD_UID", ""),
                    labels=request.labels,
                    network=request.config.name,
                    netns_name=request.netns,
                )
            )
        return success(request.config.cni_version, _interface(request, answer))

    async def _del(self, request: Request) -> None:
        record = self._record(request)
        if record is not None and record.network == request.config.name:
            await self._remove(request.container_id, request.ifname)

    async def _remove(self, container_id: str, ifname: str) -> None:
        try:
            await self._pods.detach(Detach(container_id, ifname))
        except RpcError as error:
            if error.code != NOT_FOUND:  # somebody else was faster
                raise

    async def _check(self, request: Request, namespace: Namespace | None) -> None:
        """What is the agent's own is mended; the rest is for the runtime to know."""
        if request.config.prev_result is None:
            raise CniError(Code.INVALID_CONFIG, "prevResult is missing", "CHECK needs the result of ADD")
        record = self._record(request)
        if record is None or record.network != request.config.name:
            raise CniError(
                Code.UNKNOWN_CONTAINER,
                f"{request.ifname} of container {request.container_id} is not attached",
            )
        if namespace is None:
            faults = [f"its network namespace {request.netns} has gone"]
        else:
            faults = await self._faults(record, request, namespace)
        for address in _promised(request):
            if address not in record.state.addresses:
                faults.append(f"prevResult gives it {address}; it has {', '.join(record.state.addresses)}")
        if faults:
            raise CniError(Code.NOT_AS_IT_SHOULD_BE, "; ".join(faults), "remove the container, make it anew")

    async def _faults(self, record: EndpointRecord, request: Request, namespace: Namespace) -> list[str]:
        """What is wrong with an attachment and cannot be mended from here."""
        found = self._endpoints.faults(record)
        found += await asyncio.to_thread(links.faults_outside, self._endpoints.link(record))
        if found:
            log.warning("%s/%s: %s", record.state.namespace, record.state.pod, "; ".join(found))
            if not self._endpoints.mend(record):
                return found
        link = self._endpoints.link(record, namespace.path)
        return await asyncio.to_thread(links.faults, link)

    async def _gc(self, request: Request) -> None:
        """Removes attachments of this network that the runtime does not know any more, as many as it can."""
        valid = request.config.valid_attachments
        if valid is None:
            raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments is missing", "GC needs it")
        failures = []
        for key, record in list(self._endpoints.records.items()):
            if record.network == request.config.name and key not in valid:
                log.info("%s/%s: its runtime has forgotten it", record.state.namespace, record.state.pod)
                try:
                    await self._remove(*key)
                except (RpcError, Unavailable, NetworkError) as error:
                    failures.append(f"{key[1]} of container {key[0]}: {error}")
        self._pods.sweep()
        if failures:
            raise CniError(Code.FAILED, "; ".join(failures), "the others were removed")

    def _record(self, request: Request) -> EndpointRecord | None:
        return self._endpoints.records.get((request.container_id, request.ifname))


def write_network(path: Path, socket: str) -> None:
    """The network configuration for runtimes, complete from the moment at which it appears.

    It stays when the agent ends: ``axo-cni`` waits for the next one, whereas a runtime without a
    configuration calls its node unready. `axo leave` removes it.
    """
    plugin = {"type": "axo-cni", "socket": socket, "capabilities": {ANNOTATIONS: True}}
    wanted = msgspec.json.format(
        msgspec.json.encode({"cniVersion": "1.0.0", "name": "axoneme", "plugins": [plugin]}), indent=2
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")  # not .conflist: runtimes read hidden files as well
    draft.write_bytes(wanted + b"\n")
    draft.rename(path)


def _interface(request: Request, answer: Attached) -> Interface:
    return Interface(
        host_interface=answer.host_interface,
        host_mac=GATEWAY_MAC,
        ifname=request.ifname,
        mac=answer.mac,
        netns=request.netns,
        mtu=answer.mtu,
        addresses=[(each.address, each.prefix_length, each.gateway) for each in answer.addresses],
        dns=request.config.dns,
    )


class _Address(msgspec.Struct, frozen=True):
    address: str
    interface: int | None = None


class _Named(msgspec.Struct, frozen=True):
    name: str = ""
    sandbox: str = ""


class _Previous(msgspec.Struct, frozen=True):
    ips: list[_Address] = []
    interfaces: list[_Named] = []


def _promised(request: Request) -> list[str]:
    """The addresses in ``prevResult`` that are on the interface; others are of other plugins."""
    try:
        found = msgspec.convert(request.config.prev_result, _Previous)
    except msgspec.ValidationError as error:
        raise CniError(Code.INVALID_CONFIG, f"prevResult: {error}") from error
    names = [each.name if each.sandbox else None for each in found.interfaces]
    return [
        each.address.partition("/")[0]
        for each in found.ips
        if each.interface is None or names[each.interface : each.interface + 1] == [request.ifname]
    ]

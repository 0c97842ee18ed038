"""The agent's other socket: container runtimes' requests, brought by ``axo-cni`` (CNI 1.1).

A request that is repeated is answered as the first time; one to remove what is not there succeeds. What
fails is answered with a code of the specification, so that the runtime knows whether to try again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from axoneme.agent.api import Readiness
from axoneme.agent.endpoints import EndpointRecord, EndpointTable
from axoneme.agent.pods import Attach, Attached, Detach, Pods, attached
from axoneme.cni.request import LATEST, CniError, Code, Request, parse
from axoneme.cni.result import Interface, failure, success
from axoneme.ipam.pool import PoolExhausted
from axoneme.net.pods import GATEWAY_MAC
from axoneme.rpc import NOT_FOUND, UNAVAILABLE, RpcError
from axoneme.sources.store import Unavailable

log = logging.getLogger(__name__)

_LONGEST = 1 << 21
#: Seconds that a request waits for an agent that is starting.
_PATIENCE = 15.0


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
        server = await asyncio.start_unix_server(self._client, draft, limit=_LONGEST)
        draft.chmod(0o600)
        draft.rename(self._path)  # complete, and in the place of one that a killed agent left
        async with server:
            await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            code, answer = await self._answer(await reader.read(-1))
            writer.write(bytes([code]) + (msgspec.json.encode(answer) + b"\n" if answer is not None else b""))
            await writer.drain()
        except ConnectionError:
            pass  # nobody waits for the answer any more
        finally:
            writer.close()

    async def _answer(self, message: bytes) -> tuple[int, object]:
        head, _, text = message.partition(b"\0\0")
        variables = (each.decode(errors="replace").partition("=") for each in head.split(b"\0"))
        version = LATEST
        try:
            request = parse({key: value for key, _, value in variables}, text)
            version = request.config.cni_version
            return 0, await self._do(request)
        except CniError as error:
            return 1, failure(version, error)
        except PoolExhausted as error:
            return 1, failure(version, CniError(Code.NO_ADDRESSES, str(error)))
        except RpcError as error:
            code = Code.TRY_AGAIN_LATER if error.code == UNAVAILABLE else Code.FAILED
            return 1, failure(version, CniError(code, error.message))
        except Unavailable as error:
            return 1, failure(version, CniError(Code.TRY_AGAIN_LATER, str(error)))
        except Exception as error:
            log.exception("a CNI request failed")
            return 1, failure(version, CniError(Code.FAILED, f"{type(error).__name__}: {error}"))

    async def _do(self, request: Request) -> object:
        if request.command == "STATUS":
            self._status()
            return None
        await self._readiness.wait(_PATIENCE)
        commands: dict[str, Callable[[Request], Any]] = {
            "ADD": self._add,
            "DEL": self._del,
            "CHECK": self._check,
            "GC": self._gc,
        }
        return await commands[request.command](request)

    # ---- commands ------------------------------------------------------------------------------

    def _status(self) -> None:
        if not self._readiness.ready:
            waits_for = self._readiness.waits_for
            raise CniError(Code.NOT_AVAILABLE, f"the agent is starting: it waits for {waits_for}")
        if full := self._pods.exhausted():
            raise CniError(Code.NO_ADDRESSES, full)

    async def _add(self, request: Request) -> object:
        if request.config.prev_result is not None:
            raise CniError(
                Code.INVALID_CONFIG,
                "prevResult is there",
                "axo-cni makes the interface: put it first",
            )
        record = self._record(request)
        if record is not None and record.namespace_path == request.netns:
            answer = attached(record)
        else:
            if record is not None:  # its former network namespace has gone without a DEL
                await self._pods.detach(Detach(request.container_id, request.ifname))
            namespace, name = request.pod
            answer = await self._pods.attach(
                Attach(
                    container_id=request.container_id,
                    netns=request.netns,
                    ifname=request.ifname,
                    namespace=namespace,
                    pod=name,
                    uid=request.args.get("K8S_POD_UID", ""),
                    labels=request.labels,
                    network=request.config.name,
                )
            )
        return success(request.config.cni_version, _interface(request, answer))

    async def _del(self, request: Request) -> None:
        try:
            await self._pods.detach(Detach(request.container_id, request.ifname))
        except RpcError as error:
            if error.code != NOT_FOUND:
                raise

    async def _check(self, request: Request) -> None:
        record = self._record(request)
        if record is None:
            raise CniError(
                Code.UNKNOWN_CONTAINER,
                f"{request.ifname} of container {request.container_id} is not attached",
            )
        faults = self._endpoints.faults(record)
        if record.namespace_path != request.netns:
            faults.append(f"it was attached in {record.namespace_path}, not in {request.netns}")
        for address in _promised(request):
            if address not in record.state.addresses:
                faults.append(f"prevResult gives it {address}; it has {', '.join(record.state.addresses)}")
        if faults:
            raise CniError(Code.NOT_AS_IT_SHOULD_BE, "; ".join(faults), "remove the container, make it anew")

    async def _gc(self, request: Request) -> None:
        """Removes attachments of this network that the runtime does not know any more."""
        valid = {(each.container_id, each.ifname) for each in request.config.valid_attachments or ()}
        if request.config.valid_attachments is None:
            raise CniError(Code.INVALID_CONFIG, "cni.dev/valid-attachments is missing", "GC needs it")
        for key, record in list(self._endpoints.records.items()):
            if record.network == request.config.name and key not in valid:
                await self._pods.detach(Detach(*key))

    def _record(self, request: Request) -> EndpointRecord | None:
        return self._endpoints.records.get((request.container_id, request.ifname))


def write_network(path: Path, socket: str) -> None:
    """The network configuration for runtimes, complete from the moment at which it appears.

    It stays when the agent ends: ``axo-cni`` waits for the next one, whereas a runtime without a
    configuration calls its node unready. To leave the node for good, delete it.
    """
    plugin = {"type": "axo-cni", "socket": socket}
    wanted = msgspec.json.format(
        msgspec.json.encode({"cniVersion": "1.0.0", "name": "axoneme", "plugins": [plugin]}), indent=2
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
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
    )


class _Address(msgspec.Struct, frozen=True):
    address: str


class _Previous(msgspec.Struct, frozen=True):
    ips: list[_Address] = []


def _promised(request: Request) -> list[str]:
    """The addresses in ``prevResult``."""
    if request.config.prev_result is None:
        return []
    try:
        found = msgspec.convert(request.config.prev_result, _Previous)
    except msgspec.ValidationError as error:
        raise CniError(Code.INVALID_CONFIG, f"prevResult: {error}") from error
    return [each.address.partition("/")[0] for each in found.ips]

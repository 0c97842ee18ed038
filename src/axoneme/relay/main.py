"""The relay as a process: one address for the flows of all nodes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axoneme.certificates.files import CertificateError, Files
from axoneme.hubble.address import Address
from axoneme.hubble.client import connect
from axoneme.hubble.credentials import client_context
from axoneme.hubble.serving import Server
from axoneme.metrics.process import process_metrics
from axoneme.metrics.serving import Exposition, Listening
from axoneme.relay import peers
from axoneme.relay.config import RelayConfig, load
from axoneme.relay.gathering import Limits
from axoneme.relay.pool import Change, Patience, Pool
from axoneme.relay.report import Report
from axoneme.relay.services import Observer
from axoneme.rpc.daemon import until_told
from axoneme.rpc.listening import TlsFiles
from axoneme.sources.config import ConfigError, open_store

log = logging.getLogger(__name__)

#: The header by which Hubble's clients know a relay.
_VERSION = "hubble-relay-version"


@dataclass(frozen=True)
class Relay:
    """``find`` makes the source of peers; ``files``: certificates, for whatever leaves the machine."""

    find: Callable[[], peers.Peers]
    listen: Sequence[Address]
    files: Files | None = None
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    metrics: Listening | None = None

    async def run(self, ready: Callable[[Address], None] = lambda _: None) -> None:
        """Until cancelled; ``ready`` is told of every address once clients can connect there."""
        pool = Pool(self._credentials, self.patience)
        observer = Observer(pool, self.limits, socket.gethostname())
        server = Server([observer.service()], _VERSION)
        server.health.set(False)

        def judge(_: Change) -> None:
            """A relay without any node that answers serves nobody."""
            server.health.set(bool(pool.connected()))

        with pool.listening(judge):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pool.run(self.find()))
                for address in self.listen:
                    tasks.create_task(self._serve(server, address, ready))
                if self.metrics is not None:
                    exposition = Exposition([process_metrics("axoneme_relay"), Report(pool, observer)])
                    tasks.create_task(exposition.serve(self.metrics))

    async def _serve(self, server: Server, address: Address, ready: Callable[[Address], None]) -> None:
        try:
            await server.serve(address, self.files, ready)
        except OSError as error:
            raise ConfigError(
                f"listen: {address}: {error.strerror or error}: choose an address of this machine, and a "
                "port that nobody has"
            ) from error

    def _credentials(self) -> ssl.SSLContext:
        if self.files is None:
            raise CertificateError(
                "there are no certificates for nodes elsewhere: the relay's file names none"
            )
        return client_context(self.files)


def run(config_path: Path) -> None:
    """Until SIGTERM or SIGINT. Raises `ConfigError`, `CertificateError`."""
    asyncio.run(_main(load(config_path)))


async def _main(config: RelayConfig) -> None:
    files = config.files
    store = open_store(config.store) if config.store else None

    def find() -> peers.Peers:
        if store is not None:
            return peers.in_store(store, config.cluster_name, config.port)
        if config.peer_service:
            return peers.of_service(lambda: _peer_service(config.peer_service, files), config.peer_service)
        return peers.fixed(config.peers, config.cluster_name)

    relay = Relay(
        find,
        [Address.parse(config.listen)],
        files,
        Limits(window=config.sort_window),
        metrics=_metrics(config),
    )
    try:
        await serve(relay)
    finally:
        if store is not None:
            await store.close()


def _peer_service(where: str, files: Files) -> Any:
    """With TLS where the way leaves the machine; the certificate has to be made out to the host there."""
    address = Address.parse(where)
    return connect(address, client_context(files) if address.tls or not address.local else None)


def _metrics(config: RelayConfig) -> Listening | None:
    if not config.metrics.listen:
        return None
    files = config.files
    tls = TlsFiles(files.certificate, files.key)
    try:
        return Listening.of(config.metrics.listen, "metrics.listen", tls)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def run_for_folders(nodes: Path, listen: Address, ready: Callable[[Address], None]) -> None:
    """A relay for the nodes of a sandbox, until SIGTERM or SIGINT. Raises `ConfigError`."""
    asyncio.run(serve(Relay(lambda: peers.in_folders(nodes), [listen]), ready))


async def serve(relay: Relay, ready: Callable[[Address], None] = lambda _: None) -> None:
    def listening(address: Address) -> None:
        log.info("listening at %s", address)
        ready(address)

    if await until_told(relay.run(listening)):
        log.info("asked to stop")

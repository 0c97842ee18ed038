"""What must outlive the process besides the desired state: addresses given out of pools, and what was down.

A process that starts anew must not send clients to a backend that has been dead for hours, only because its
own checks have not failed often enough yet.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from axoneme.balancer.probes import Trial
from axoneme.services.balanced import Address
from axoneme.services.standalone import Claim
from axoneme.services.verdict import Health

log = logging.getLogger(__name__)


class _Given(msgspec.Struct, frozen=True):
    claim: Claim
    address: str


class _Kept(msgspec.Struct, frozen=True):
    given: tuple[_Given, ...] = ()
    down: tuple[Trial, ...] = ()


class Memory:
    """A file. One that cannot be read counts as empty, and one that cannot be written is told
    (``problem``): neither keeps anybody from being served."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""
        self.problem = ""
        kept = _Kept()
        try:
            self._written = path.read_bytes()
            kept = msgspec.json.decode(self._written, type=_Kept)
            self.given = {each.claim: ip_address(each.address) for each in kept.given}
        except FileNotFoundError:
            self.given = {}
        except (OSError, ValueError) as error:
            log.error("%s: not read: %s; addresses out of pools may be others than before", path, error)
            self.given = {}
        self.health = dict.fromkeys(kept.down, Health.DOWN)

    def keep(self, given: Mapping[Claim, Address], health: Mapping[Trial, Health]) -> None:
        """Writes them down, if they are other than before."""
        self.given = dict(given)
        kept = _Kept(
            tuple(_Given(claim, str(address)) for claim, address in sorted(given.items())),
            tuple(trial for trial, each in health.items() if each is Health.DOWN),
        )
        data = msgspec.json.encode(kept)
        if data == self._written:
            return
        made = self._path.with_suffix(".new")
        try:
            with open(made, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            made.replace(self._path)
            self._written, self.problem = data, ""
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror}; after a restart, addresses may be others"

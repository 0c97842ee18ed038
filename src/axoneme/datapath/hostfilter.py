"""Policy for the node itself (bpf/host.bpf.c): programs before all others of a device, while there is one.

They are loaded and attached when the first host policy comes, and taken off when the last has gone.

    <bpffs>/links/<interface>-<point>-host   at uplinks and the overlay (pods: filters on their link)
    <bpffs>/host-flows                       what was allowed, of other protocols than TCP
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from axoneme.datapath import attach, bpf, clsact, links, tcx
from axoneme.datapath.features import Feature, has
from axoneme.datapath.libbpf import Object
from axoneme.datapath.maps import Table
from axoneme.datapath.programs import Constants
from axoneme.datapath.succession import Place
from axoneme.datapath.xdp import load

log = logging.getLogger(__name__)

#: By where they stand.
_PROGRAMS: Final = {attach.INGRESS: "host_in", attach.EGRESS: "host_out"}
#: Filters of a priority run newest first.
_HANDLE: Final = clsact.HANDLE + 2
#: Nanoseconds in which what goes on already is learnt, before anything is dropped.
LEARN: Final = 3_000_000_000


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Subjects of the policies in force, 0 for none: ``tried`` up to ``until`` (CLOCK_BOOTTIME, ns),
    ``confirmed`` from then on, whoever is there to see it."""

    confirmed: int = 0
    tried: int = 0
    until: int = 0


class HostFilter:
    """``root`` is the datapath's; the object is in ``folder``."""

    def __init__(self, root: Path, folder: Path, constants: Constants) -> None:
        self._root = root
        self._folder = folder
        self._constants = constants
        self._source: Object | None = None
        self._settings = HostSettings()
        self._learn = 0

    @property
    def active(self) -> bool:
        return self._source is not None

    def enforce(self, settings: HostSettings, tables: Mapping[str, int], places: Iterable[Place]) -> None:
        """From now on these are in force, everywhere. `LoadError`, `BpfError` when the kernel refuses."""
        self._settings = settings
        if not settings.confirmed and not settings.tried:
            self._withdraw(places)
        elif self._source is None:
            self.renew(tables, places)
        else:
            self._tell(self._source)

    def renew(self, tables: Mapping[str, int], places: Iterable[Place]) -> None:
        """Loads the programs over these tables, by name, and puts them in the places of what is there."""
        pin = self._root / "host-flows"
        try:
            flows = bpf.pinned(pin)
        except bpf.NotFound:
            flows = -1
            self._learn = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + LEARN
        try:
            known = {**tables, "host_flows": flows} if flows >= 0 else tables
            source = load(self._folder, self._constants, known, "host")
        finally:
            if flows >= 0:
                os.close(flows)
        try:
            if flows < 0:
                bpf.pin(source.map_fd("host_flows"), pin)
            self._tell(source)
        except BaseException:
            source.close()
            raise
        former, self._source = self._source, source
        if former is not None:
            former.close()
        for place in places:
            self.put(place)

    def put(self, place: Place) -> None:
        """Before the program that stands there."""
        if self._source is None:
            return
        program = self._source.program_fd(_PROGRAMS[place.point])
        try:
            if place.pin is None or not has(Feature.TCX):
                clsact.attach(program, place.ifindex, place.point, _HANDLE)
            else:
                behind = tcx.attached(place.ifindex, place.point, place.pin)
                tcx.attach(program, place.ifindex, place.point, _pin(place.pin), before=behind)
        except bpf.BpfError as error:
            if error.errno != errno.ENODEV:  # the interface is going
                raise

    def mend(self, places: Iterable[Place]) -> int:
        """Puts the programs back where they have been taken away; how often."""
        return sum(
            self._source is not None and not self._is_at(place) and self._mended(place) for place in places
        )

    def _mended(self, place: Place) -> bool:
        try:
            self.put(place)
        except bpf.BpfError as error:
            log.error("%s", error)
            return False
        return True

    def _is_at(self, place: Place) -> bool:
        assert self._source is not None
        number = bpf.program_info(self._source.program_fd(_PROGRAMS[place.point])).id
        if place.pin is None or not has(Feature.TCX):
            return clsact.attached(place.ifindex, place.point, _HANDLE) == number
        return tcx.attached(place.ifindex, place.point, _pin(place.pin)) == number

    def release(self, pin: Path) -> None:
        """Of an interface that may be gone; ``pin`` is that of the program behind."""
        links.detach(_pin(pin))

    def _withdraw(self, places: Iterable[Place]) -> None:
        for pin in (self._root / "links").glob("*-host"):
            links.detach(pin)
        for place in places:
            if place.pin is None or not has(Feature.TCX):
                clsact.detach(place.ifindex, place.point, _HANDLE)
        (self._root / "host-flows").unlink(missing_ok=True)
        self.close()

    def _tell(self, source: Object) -> None:
        with Table.of(source, "host_settings") as table:
            value = np.zeros((), table.value)
            value["until"], value["learn"] = self._settings.until, self._learn
            value["tried"], value["confirmed"] = self._settings.tried, self._settings.confirmed
            table.put(0, value)

    def close(self) -> None:
        """What is attached stays at work."""
        source, self._source = self._source, None
        if source is not None:
            source.close()


def remove(ifindex: int) -> None:
    """Takes filters off an interface; links go with their pins."""
    for point in _PROGRAMS:
        clsact.detach(ifindex, point, _HANDLE)


def _pin(behind: Path) -> Path:
    return behind.with_name(f"{behind.name}-host")

"""Policies for the node itself: tried first, in force for good when somebody has confirmed them.

A policy that locks everybody out of a machine cannot be taken back there. So a host policy that is new, or
other than before, is only *tried*: up to a deadline, then what was confirmed before is in force again, unless
`confirm` has come. Both sets of policies are in the kernel, under two subjects, and so is the deadline: what
happens at its end needs no agent. Whichever moment an agent dies in, a file tells the next one what was
confirmed, what is tried and how long, and what has been given up.

    told: objects as the shared state has them     confirmed: as somebody confirmed them
    tried: told, where it is other than confirmed  given up: versions that nobody confirmed in time

A policy that is deleted goes at once, from both sets. An object that is given up has to change to be tried
again. Fail-safe rules (`failsafe`) come before all of it, as an admin's would.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from axoneme.agent import files
from axoneme.agent.control import Control
from axoneme.agent.failsafe import FAIL_SAFE
from axoneme.datapath.hostfilter import HostSettings
from axoneme.datapath.plane import Datapath
from axoneme.model.hostpolicystate import HostPolicyState
from axoneme.model.labels import exists
from axoneme.model.policies import parse_policy
from axoneme.model.policy import Policy
from axoneme.model.trial import AUDIT
from axoneme.policy.engine import PolicyKey
from axoneme.policy.identities import HOST, HOST_TRIED
from axoneme.sources.config import ConfigError

log = logging.getLogger(__name__)

#: In the agent's state directory.
FILE_NAME: Final = "host-policies.json"
_SUBJECTS: Final = {"confirmed": HOST, "tried": HOST_TRIED}

Object = dict[str, Any]


class _File(msgspec.Struct):
    """``until`` counts from the boot whose id is ``boot``. Digests are of what objects say."""

    confirmed: dict[str, Object] = {}
    tried: dict[str, str] = {}
    given_up: dict[str, str] = {}
    boot: str = ""
    until: int = 0


class HostPolicies:
    """Tells `Control` and the datapath. ``clock``: CLOCK_BOOTTIME in nanoseconds; ``boot``: the boot's id."""

    def __init__(
        self,
        control: Control,
        plane: Datapath,
        path: Path,
        fail_safe: Policy,
        timeout: float,
        cluster: str,
        clock: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        boot: str = "",
    ) -> None:
        self._control = control
        self._plane = plane
        self._path = path
        self._fail_safe = fail_safe
        self._timeout = int(timeout * 1e9)
        self._cluster = cluster
        self._clock = clock
        self._told: dict[str, tuple[Object, tuple[Policy, ...]]] = {}
        self._file = _read(path)
        self._in_force = HostSettings()
        #: Whether the kernel is known to have `_in_force`.
        self._settled = False
        #: What has been tried since the kernel was told so, as `_File.tried`.
        self._on_trial: dict[str, str] = {}
        #: By set, what the engine has, and the objects that this is of.
        self._given: dict[str, set[PolicyKey]] = {"confirmed": set(), "tried": set()}
        self._given_of: dict[str, Mapping[str, Object]] = {}
        boot = boot or Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if self._file.until and (self._file.boot != boot or clock() >= self._file.until):
            self._give_up()
        self._file.boot = boot

    # ---- what is heard -------------------------------------------------------------------------

    def told(self, key: str, object: Object | None) -> None:
        """An object with policies for nodes, or (None) one that has none any more; its key in the state."""
        if object is None:
            self._told.pop(key, None)
        else:
            policies = parse_policy(object, self._cluster)
            self._told[key] = object, tuple(each for each in policies if each.hosts)

    def confirm(self) -> HostPolicyState:
        """What is tried is in force for good, from the next `prepare` and `enforce` on. A version that came
        only now, or whose time is over, was not tried: nobody can have meant it."""
        tried = {
            key: object
            for key, object in self._here().items()
            if self._on_trial.get(key) == _digest(object) and not self.due
        }
        if tried:
            self._file.confirmed |= tried
            self._end_trial()
            self._save()
        return self.state()

    def state(self) -> HostPolicyState:
        pending = self._pending()
        left = max(0.0, (self._file.until - self._clock()) / 1e9) if pending else 0.0
        return HostPolicyState(
            sorted(self._file.confirmed), sorted(pending), left, sorted(self._file.given_up)
        )

    @property
    def given(self) -> int:
        """How many objects the engine has for what is told here, and how many more that is than there are."""
        return len(self._given["confirmed"]) + len(self._given["tried"]) - len(self._told)

    # ---- to the engine, to the kernel ----------------------------------------------------------

    def prepare(self) -> None:
        """Before `Control.settle`: the engine gets what is to be in force. Nothing goes yet that is."""
        self._decide()
        sets: dict[str, Mapping[str, Object]] = {"confirmed": self._file.confirmed}
        if self._file.until:
            sets["tried"] = self._wanted()
        for name, objects in sets.items():
            if objects:
                self._give(name, objects)

    def enforce(self) -> bool:
        """After it: the kernel is told. Whether something is gone, so that the tables have to be settled."""
        confirmed, tried = bool(self._file.confirmed), bool(self._file.until)
        wanted = self._wanted_settings()
        if self.owed:
            self._settled = False
            self._plane.guard_host(wanted)
            self._in_force, self._settled = wanted, True
        self._on_trial = dict(self._file.tried)
        gone = False
        for name, there in (("confirmed", confirmed), ("tried", tried)):
            if not there and self._given[name]:
                self._take(name)
                gone = True
        return gone

    @property
    def owed(self) -> bool:
        """Whether the kernel is still to be told something."""
        return not self._settled or self._wanted_settings() != self._in_force

    def _wanted_settings(self) -> HostSettings:
        file = self._file
        return HostSettings(HOST if file.confirmed else 0, HOST_TRIED if file.until else 0, file.until)

    @property
    def due(self) -> bool:
        """Whether a trial has come to its end."""
        return bool(self._file.until) and self._clock() >= self._file.until

    def _decide(self) -> None:
        """Begins, goes on with or ends a trial, by what is told now."""
        file = self._file
        before = msgspec.json.encode(file)
        for gone in file.confirmed.keys() - self._here().keys():
            del file.confirmed[gone]
        file.given_up = {k: v for k, v in file.given_up.items() if self._digest(k) == v}
        if self.due:
            self._give_up()
        digests = {key: digest for key in self._pending() if (digest := self._digest(key))}
        if not digests:
            self._end_trial()
        elif digests != file.tried:
            file.tried = digests
            file.until = self._clock() + self._timeout
            names = ", ".join(sorted(digests))
            log.warning("%s: in force for %d s, unless it is confirmed", names, self._timeout // 10**9)
        if msgspec.json.encode(file) != before:
            self._save()

    def _pending(self) -> list[str]:
        """The objects that are other than confirmed, and not given up."""
        return [
            key
            for key, object in self._here().items()
            if _digest(object) != _digest(self._file.confirmed.get(key))
            and self._file.given_up.get(key) != _digest(object)
        ]

    def _wanted(self) -> Mapping[str, Object]:
        """What the tried set consists of: what is pending, and what is confirmed beside it."""
        here = self._here()
        return {**self._file.confirmed, **{key: here[key] for key in self._pending()}}

    def _here(self) -> dict[str, Object]:
        """Those told that select this node."""
        labels = self._control.host_labels
        return {
            key: object
            for key, (object, policies) in self._told.items()
            if any(policy.subject.matches(labels) for policy in policies)
        }

    def _give_up(self) -> None:
        if self._file.tried:
            names = ", ".join(sorted(self._file.tried))
            log.warning("%s: nobody has confirmed it; what was before is in force", names)
        self._file.given_up |= self._file.tried
        self._end_trial()

    def _end_trial(self) -> None:
        self._file.tried, self._file.until = {}, 0
        self._on_trial = {}

    def _digest(self, key: str) -> str:
        return _digest(self._told[key][0]) if key in self._told else ""

    def _give(self, name: str, objects: Mapping[str, Object]) -> None:
        if self._given_of.get(name) == objects:
            return
        self._control.host_subject(_SUBJECTS[name], True)
        marker = exists("host", name)
        wanted: dict[PolicyKey, tuple[Policy, ...]] = {
            PolicyKey(FAIL_SAFE.kind, name, FAIL_SAFE.name): (self._fail_safe,)
        }
        for key, object in objects.items():
            policies = parse_policy(object, self._cluster)
            wanted[PolicyKey(key, name, "")] = tuple(each for each in policies if each.hosts)
        engine = self._control.engine
        for policy_key in self._given[name] - wanted.keys():
            engine.remove_policy(policy_key)
        for policy_key, policies in wanted.items():
            engine.upsert_policy(
                policy_key, [replace(each, subject=each.subject.and_(marker)) for each in policies]
            )
        self._given[name] = set(wanted)
        self._given_of[name] = dict(objects)

    def _take(self, name: str) -> None:
        for key in self._given[name]:
            self._control.engine.remove_policy(key)
        self._given[name] = set()
        self._given_of.pop(name, None)
        self._control.host_subject(_SUBJECTS[name], False)

    def _save(self) -> None:
        """Before anything of it is in the kernel."""
        files.replace(self._path, msgspec.json.encode(self._file))


def _digest(object: Object | None) -> str:
    """Of what an object says; empty for none."""
    if object is None:
        return ""
    said = {key: object.get(key) for key in ("spec", "specs")}
    if audit := (object["metadata"].get("annotations") or {}).get(AUDIT):
        said[AUDIT] = audit
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return _File()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path}: {error}; it says which host policies are confirmed: restore it, or remove it, and all "
            "are tried anew"
        ) from error

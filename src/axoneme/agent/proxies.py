"""What the node's proxies have to do: plans written, reports heard.

`Control` says which rule sets policy entries are going to name (`use`), writes the entries, and says what is
left (`keep`). Between the two it may wait a little for the proxies, so that nobody is sent to a listener that
is not there yet (`waiting`). Where a proxy does not come up, entries are written all the same: what they send
to it is held, for nobody listens.

Ports are the same after a restart of the agent: they stand in a file. Its proxies go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from axoneme.agent import files
from axoneme.agent.referred import Referred
from axoneme.model.envoyconfig import CLUSTERWIDE, NAMESPACED, parse_envoy_config
from axoneme.model.l7 import SecretRef
from axoneme.model.redaction import Redaction
from axoneme.model.secrets import KIND as SECRET
from axoneme.model.secrets import parse_secret
from axoneme.policy.listenerports import ListenerPorts, Moves, proxy_of
from axoneme.policy.rulesets import RuleSet
from axoneme.proxy.config import ProxiesConfig
from axoneme.proxy.following import read_plan, read_report, write_plan
from axoneme.proxy.names import Names
from axoneme.proxy.plan import KINDS, PLAN, Listener, Plan, Report, SecretData, directory
from axoneme.sources.inotify import Folders
from axoneme.sources.store import Store

log = logging.getLogger(__name__)

#: In the agent's state directory: what outlives it.
FILE_NAME: Final = "listeners.json"


class Patience(NamedTuple):
    """Seconds that entries wait at most: for a proxy that runs to be ready for them, and for one that is only
    asked for now to start."""

    ready: float = 0.3
    start: float = 2.0


PATIENCE: Final = Patience()


class ListenerState(msgspec.Struct, frozen=True):
    """``state``: ``ready``, ``waiting`` for its proxy, or ``failed``; then ``problem`` says why."""

    kind: str
    port: int
    direction: str
    rules: str
    audit: bool
    state: str
    problem: str = ""


class Proxies:
    def __init__(
        self,
        node: str,
        state: Path,
        families: tuple[int, ...],
        events: Path,
        config: ProxiesConfig,
        redaction: Redaction,
        patience: Patience = PATIENCE,
    ) -> None:
        self._file = state / FILE_NAME
        self._folders = {kind: directory(state, kind) for kind in KINDS}
        self._config = config
        self._empty = Plan(node, 0, families, str(events), redaction=redaction)
        for folder in self._folders.values():
            _make(folder, config.user)
        memory = _remembered(self._file)
        self._ports = ListenerPorts(*config.ports, {int(n, 16): port for n, port in memory.ports.items()})
        self._written = {kind: Plan("", memory.revisions.get(kind, 0), (), "") for kind in KINDS}
        self._begun = False
        self._reports = {kind: read_report(folder) for kind, folder in self._folders.items()}
        #: By kind and port: the revision of the plan that brought what is asked of the listener now.
        self._since: dict[str, dict[int, int]] = {kind: {} for kind in KINDS}
        self._patience = patience
        #: By kind, on the monotonic clock: until when it is waited for at most.
        self._deadlines = dict.fromkeys(KINDS, 0.0)
        # Proxies go on with what they had until this agent knows better: a plan that lacked it meanwhile
        # would close what opens TLS, and let answers out before their addresses are in force.
        former = [plan for folder in self._folders.values() if (plan := read_plan(folder))]
        self._names: Names | None = next((plan.names for plan in former if plan.names), None)
        self._secrets = Referred(
            parse_secret,
            {_secret(each.namespace, each.name): each.data for plan in former for each in plan.secrets},
        )
        self._configs = Referred(
            parse_envoy_config,
            {_config(each.namespace, each.name): each for plan in former for each in plan.configs},
        )
        self._changed = asyncio.Event()
        #: Why a file is not as it should be; empty: all are.
        self.trouble = ""

    # ---- what is asked of them -----------------------------------------------------------------

    @property
    def ports(self) -> Mapping[int, int]:
        """By the numbers of rule sets."""
        return self._ports.ports

    @property
    def numbers(self) -> Mapping[int, int]:
        """The other way round."""
        return self._ports.numbers

    def use(self, wanted: Mapping[int, RuleSet], moves: Moves) -> None:
        """Asks for listeners for all of these, besides those that there are. `NoPort` when they are too
        many."""
        if moves or not wanted.keys() <= self._ports.rules.keys():
            self._ports.use(wanted, moves)
            self.write()

    def keep(self, wanted: Mapping[int, RuleSet]) -> None:
        """No entry names others any more, nor those of an earlier agent."""
        if not self._begun or self._ports.ports.keys() != wanted.keys():
            self._ports.keep(wanted)
            self.write()

    def names_are(self, names: Names | None) -> None:
        """What the DNS proxy has to know of names."""
        if names is not self._names and names != self._names:
            self._names = names
            self.write()

    def retry(self) -> None:
        if self.trouble:
            self.write()

    def write(self) -> None:
        """Brings the files up to date; what cannot be written stands in `trouble` until it can."""
        self._begun = True
        rules = self._ports.rules.values()
        self._secrets.need(_secret(ref.namespace, ref.name) for each in rules for ref in _secrets_of(each))
        self._configs.need(_config(*ref) for each in rules for ref in _configs_of(each))
        plans = {kind: self._plan(kind) for kind in KINDS}
        try:
            revisions = {kind: plan.revision for kind, plan in plans.items()}
            ports = {f"{number:x}": port for number, port in sorted(self._ports.ports.items())}
            files.replace(self._file, msgspec.json.encode(_Memory(ports, revisions)))
            for kind, plan in plans.items():
                if plan != self._written[kind]:
                    self._write_plan(kind, plan)
            self.trouble = ""
        except OSError as error:
            self.trouble = f"{error}; proxies go on with what they had"
            log.error("%s", self.trouble)

    def _write_plan(self, kind: str, plan: Plan) -> None:
        if plan.listeners:
            write_plan(self._folders[kind], plan)
        else:
            (self._folders[kind] / PLAN).unlink(missing_ok=True)
        had = {listener.port: listener for listener in self._written[kind].listeners}
        now = time.monotonic()
        if self.heard(kind):
            self._deadlines[kind] = now + self._patience.ready
        elif not had:
            self._deadlines[kind] = now + self._patience.start
        self._written[kind] = plan
        self._since[kind] = {
            listener.port: self._since[kind][listener.port]
            if had.get(listener.port) == listener
            else plan.revision
            for listener in plan.listeners
        }

    def _plan(self, kind: str) -> Plan:
        rules = self._ports.rules
        here = {
            n: rules[n] for n in self._ports.ports if n in rules and proxy_of(rules[n].rules.kind) == kind
        }
        listeners = [
            Listener(self._ports.ports[number], each.direction.name.lower(), each.rules, each.audit)
            for number, each in here.items()
        ]
        needed = sorted({ref for each in here.values() for ref in _secrets_of(each)})
        configs = sorted({_config(*ref) for each in here.values() for ref in _configs_of(each)})
        known = self._secrets.known
        before = self._written[kind]
        plan = msgspec.structs.replace(
            self._empty,
            revision=before.revision,
            listeners=tuple(sorted(listeners, key=lambda listener: listener.port)),
            secrets=tuple(
                SecretData(ref.namespace, ref.name, known[key])
                for ref in needed
                if (key := _secret(ref.namespace, ref.name)) in known
            ),
            configs=tuple(self._configs.known[key] for key in configs if key in self._configs.known),
        )
        if kind == "dns" and listeners:
            plan = msgspec.structs.replace(plan, names=self._names)
        return plan if plan == before else msgspec.structs.replace(plan, revision=before.revision + 1)

    # ---- what they say -------------------------------------------------------------------------

    async def run(self, store: Store) -> None:
        """Hears reports and secrets, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._secrets.run(store, self.write))
            tasks.create_task(self._configs.run(store, self.write))
            tasks.create_task(self._hear())

    async def _hear(self) -> None:
        folders = Folders(list(self._folders.values()))
        try:
            while True:
                self._reports = {kind: read_report(folder) for kind, folder in self._folders.items()}
                self._changed.set()
                await folders.changed()
        finally:
            folders.close()

    @property
    def waiting(self) -> bool:
        """Whether a proxy has still to do what its plan says, and is worth waiting for."""
        return self._remaining() > 0

    def _remaining(self) -> float:
        """For how long, in seconds."""
        deadlines = (
            self._deadlines[kind]
            for kind in KINDS
            if any(state.state == "waiting" for state in self._states(kind))
        )
        return max(deadlines, default=0.0) - time.monotonic()

    async def ready(self) -> None:
        """Returns when no proxy is `waiting` any more."""
        while (seconds := self._remaining()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def heard(self, kind: str) -> bool:
        """Whether a proxy that runs has said anything."""
        report = self._reports[kind]
        return report is not None and _alive(report.pid)

    def states(self) -> list[ListenerState]:
        """Every listener, by kind and port."""
        return [state for kind in KINDS for state in self._states(kind)]

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, under words of where."""
        if self.trouble:
            yield "proxies", self.trouble
        for state in self.states():
            if state.state == "failed":
                yield f"proxy/{state.kind}/{state.port}", f"{state.rules}: {state.problem}"
        for key, why in sorted({**self._secrets.missing, **self._configs.missing}.items()):
            yield key, f"rules refer to it: {why}"

    def _states(self, kind: str) -> Iterator[ListenerState]:
        report = self._reports[kind] or Report(0)
        runs = _alive(report.pid)
        for listener in self._written[kind].listeners:
            since = self._since[kind][listener.port]
            problem = report.errors.get(listener.port, "") if report.revision >= since else ""
            done = runs and report.revision >= since and listener.port in report.ready
            yield ListenerState(
                kind,
                listener.port,
                listener.direction,
                summary(listener),
                listener.audit,
                "failed" if problem else "ready" if done else "waiting",
                problem,
            )


def summary(listener: Listener) -> str:
    """What a listener holds to, in a few words."""
    rules = listener.rules
    parts = [f"{len(rules.rules)} rule{'s' if len(rules.rules) != 1 else ''}"] if rules.rules else []
    parts += [f"server names {', '.join(rules.server_names)}"] if rules.server_names else []
    parts += ["TLS opened"] if rules.terminating else []
    if rules.listener:
        whose = f"{rules.listener.namespace}/{rules.listener.name}".removeprefix("/")
        return f"listener {rules.listener.listener} of {whose}"
    return f"{rules.kind.name}: {', '.join(parts)}"


def _secrets_of(rules: RuleSet) -> Iterator[SecretRef]:
    for context in (rules.rules.terminating, rules.rules.originating):
        if context:
            yield context.secret
    for rule in rules.rules.http:
        for header in rule.headers:
            if header.secret:
                yield header.secret


def _configs_of(rules: RuleSet) -> Iterator[tuple[str, str]]:
    if wanted := rules.rules.listener:
        yield wanted.namespace, wanted.name


def _secret(namespace: str, name: str) -> str:
    """Its key in the shared state."""
    return f"objects/{SECRET}/{namespace}/{name}"


def _config(namespace: str, name: str) -> str:
    return f"objects/{NAMESPACED if namespace else CLUSTERWIDE}/{namespace or '_'}/{name}"


def _alive(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


# ---- files -------------------------------------------------------------------------------------


def _make(folder: Path, user: str) -> None:
    """A proxy's own folder, into which nobody else may look: there are secrets in plans."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            log.error("proxies.user: this machine has no user %r; proxies will not start", user)
            return
        os.chown(folder, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


class _Memory(msgspec.Struct, frozen=True):
    """What the file holds: ports by the numbers of rule sets, in hexadecimal, and plans' revisions."""

    ports: dict[str, int] = {}
    revisions: dict[str, int] = {}


def _remembered(file: Path) -> _Memory:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Memory)
    except FileNotFoundError:
        return _Memory()
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("%s: %s; listeners get new ports, and connections through them end", file, error)
        return _Memory()

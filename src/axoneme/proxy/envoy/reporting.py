"""Which listeners take connections by the plan's rules: Envoy has acknowledged all that they need, and a
connection to them is taken."""

from __future__ import annotations

import asyncio
import logging
import socket

from axoneme.proxy.envoy.ads import Conversation, Discovery
from axoneme.proxy.envoy.resources import LISTENER, Key, Resources
from axoneme.proxy.following import Following
from axoneme.proxy.plan import Plan, Report
from axoneme.proxy.sockets import LOOPBACK

log = logging.getLogger(__name__)

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
#: Seconds between two looks whether a listener takes connections that Envoy is about to make.
_AGAIN = 0.005
#: What protobuf puts in front of a message that it writes down for people.
_DUMP = "goo.gle/debug"
#: Seconds for a connection on this machine.
_PATIENCE = 1.0


class Reporter:
    """A plan's revision is reported when all of it is settled: in force, or known not to be possible. Until
    then the report is of the plan before it, without the listeners that are no more."""

    def __init__(self, discovery: Discovery, following: Following, changed: asyncio.Event) -> None:
        self._discovery = discovery
        self._following = following
        self._changed = changed
        self._plan: Plan | None = None
        self._report = Report(revision=0)
        #: Listeners that have been seen to take connections, and whose.
        self._open: set[tuple[Key, str]] = set()
        self._whose: Conversation | None = None

    def follow(self, plan: Plan) -> None:
        """Another plan, after `Discovery` has it."""
        self._plan = plan
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            waits = await self._look()
            if not waits:
                await self._changed.wait()
                continue
            try:
                async with asyncio.timeout(_AGAIN):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _look(self) -> bool:
        """Reports; whether a listener is about to take connections, of which nobody will say that it does."""
        plan, resources, conversation = self._plan, self._discovery.resources, self._discovery.conversation
        if plan is None:
            return False
        if conversation is not self._whose:
            self._whose = conversation
            self._open.clear()
        if conversation is None:
            self._say(Report(revision=self._report.revision, errors=self._report.errors))
            return False
        ready, errors, unsettled, waits = set(), dict(resources.errors), False, False
        for port, needs in resources.needs.items():
            settled, refusal = _standing(conversation, resources, needs)
            if refusal:
                errors[port] = refusal
            elif not settled:
                unsettled = True
            elif await self._takes_connections(plan, port, resources):
                ready.add(port)
            else:
                waits = True
        if self._discovery.conversation is not conversation or self._plan is not plan:
            return True
        if unsettled or waits:
            before = set(self._report.ready)
            still = before & resources.needs.keys()
            revision = self._report.revision
            self._say(Report(revision, tuple(sorted(still)), self._report.errors))
        else:
            for port in errors.keys() - self._report.errors.keys():
                log.error("port %d cannot be served: %s", port, errors[port])
            self._say(Report(plan.revision, tuple(sorted(ready)), errors))
        return waits

    async def _takes_connections(self, plan: Plan, port: int, resources: Resources) -> bool:
        key = Key(LISTENER, str(port))
        seen = key, resources.content[key].version
        if seen not in self._open:
            for family in plan.families:
                if not await _answers(_FAMILIES[family], port):
                    return False
            self._open.add(seen)
        return True

    def _say(self, report: Report) -> None:
        self._report = report
        self._following.report(report)


def _standing(conversation: Conversation, resources: Resources, needs: frozenset[Key]) -> tuple[bool, str]:
    """Whether Envoy has said of all what it does with them; and what it does not take."""
    settled = True
    for key in sorted(needs):
        version = resources.content[key].version
        refused = conversation.refused.get(key)
        if refused is not None and refused[0] == version:
            return True, f"Envoy refuses it: {_without_values(refused[1])}"
        settled &= conversation.taken.get(key) == version
    return settled, ""


def _without_values(said: str) -> str:
    """Without what Envoy was given, which it may repeat as a whole, with Secrets in it."""
    reason = said.partition(_DUMP)[0].strip().partition("\n")[0].rstrip(": ")
    return reason or "a header's name or value, or an expression, is not as it has to be"


async def _answers(family: socket.AddressFamily, port: int) -> bool:
    """A listener closes connections to itself."""
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as trial:
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.get_running_loop().sock_connect(trial, (LOOPBACK[family], port))
        except (OSError, TimeoutError):
            return False
    return True

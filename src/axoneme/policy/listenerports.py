"""At which port of the node each rule set's listener is.

A port stays with its rules, for connections live through it. Where everybody who used some rules uses certain
new ones instead, these get the port: the proxy then changes its mind about the connections that it has, and
none of them is cut. In all other cases what is new gets a port that is free, the same one on every try.

One goes through a change of the policy table like this: `use` what shall hold beside what does, write plans
and entries, then `keep` only what shall hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from axoneme.model.l7 import L7Kind
from axoneme.policy.rulesets import RuleSet

#: By number: to what its users went in a change of the table, `NO_LISTENER` among them.
Moves = Mapping[int, Set[int]]


class NoPort(ValueError):
    """There are more rule sets than ports."""


class ListenerPorts:
    """Ports from ``first`` to ``last``; ``ports`` are those of an earlier agent, by rule sets' numbers."""

    def __init__(self, first: int, last: int, ports: Mapping[int, int] = {}) -> None:
        self._range = range(first, last + 1)
        self._ports: dict[int, int] = {}
        self._taken: dict[int, int] = {}
        self._rules: dict[int, RuleSet] = {}
        for number, port in ports.items():
            if port in self._range and port not in self._taken:
                self._give(number, port)

    @property
    def ports(self) -> Mapping[int, int]:
        """By number."""
        return self._ports

    @property
    def numbers(self) -> Mapping[int, int]:
        """By port."""
        return self._taken

    @property
    def rules(self) -> Mapping[int, RuleSet]:
        """Of those numbers that have been used since the start."""
        return self._rules

    def use(self, wanted: Mapping[int, RuleSet], moves: Moves) -> None:
        """Gives ports to what is wanted and has none. `NoPort`, and nothing has changed, when there are too
        few."""
        new = {number: rules for number, rules in wanted.items() if number not in self._ports}
        heirs = self._heirs(wanted, new, moves)
        if len(self._ports) + len(new) - len(heirs) > len(self._range):
            raise NoPort(
                f"proxies.ports: {len(self._range):,} listeners at most, {len(wanted):,} needed; "
                "widen the range in the agent's configuration"
            )
        for number, heir in heirs.items():
            port = self._ports.pop(number)
            self._rules.pop(number, None)
            self._give(heir, port)
        for number in new.keys() - heirs.values():
            self._give(number, self._free(number))
        self._rules.update(wanted)

    @property
    def waiting(self) -> bool:
        """Nobody has to be waited for."""
        return False

    def keep(self, wanted: Mapping[int, RuleSet]) -> None:
        """Takes back all other ports."""
        for number in self._ports.keys() - wanted.keys():
            del self._taken[self._ports.pop(number)]
            self._rules.pop(number, None)

    def _heirs(
        self, wanted: Mapping[int, RuleSet], new: Mapping[int, RuleSet], moves: Moves
    ) -> dict[int, int]:
        """By numbers that nobody uses any more: the new ones that get their ports."""
        heirs: dict[int, int] = {}
        for number in sorted(moves, key=lambda number: self._ports.get(number, 0)):
            if number in wanted or number not in self._ports or len(moves[number]) != 1:
                continue
            (heir,) = moves[number]
            if heir in new and heir not in heirs.values() and _alike(self._rules.get(number), new[heir]):
                heirs[number] = heir
        return heirs

    def _give(self, number: int, port: int) -> None:
        self._ports[number] = port
        self._taken[port] = number

    def _free(self, number: int) -> int:
        size = len(self._range)
        at = number % size
        while self._range[at] in self._taken:
            at = (at + 1) % size
        return self._range[at]


def proxy_of(kind: L7Kind) -> str:
    """Which proxy understands it: one of `axoneme.proxy.plan.KINDS`."""
    return {L7Kind.KAFKA: "kafka", L7Kind.DNS: "dns"}.get(kind, "envoy")


def _alike(former: RuleSet | None, latter: RuleSet) -> bool:
    """Whether one proxy listens for both, with the same marks on its sockets."""
    return (
        former is not None
        and former.direction is latter.direction
        and proxy_of(former.rules.kind) == proxy_of(latter.rules.kind)
    )

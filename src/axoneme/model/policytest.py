"""PolicyTest: who shall reach whom, written beside the manifests whose policies it is about.

An expectation is a sentence, or the same in fields:

    from default/tiefighter to default/deathstar port 80 -> allowed by rule1
    {from: default/xwing, to: default/deathstar, port: 80, verdict: denied, by: rule1}

What the ends are called means nothing until there is a cluster: here they are only taken apart.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from axoneme.model import checks
from axoneme.model.metadata import naming
from axoneme.model.paths import Fields, Place
from axoneme.model.policy import Protocol

KIND = "PolicyTest"
API_VERSION = "axoneme.io/v1alpha1"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

WORLD = "world"
HOST = "host"

_FIELDS = ("apiVersion", "kind", "metadata", "manifests", "nodes", "routing", "family", "expect")
_FAMILIES: Mapping[str, tuple[int, ...]] = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
_PROTOCOLS = {each.name: each for each in (Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.ICMP)}
_VERDICTS = {"allowed": True, "denied": False}
_ARROWS = ("->", "=>", "→", "is")
_SENTENCE = "from END to END port N[/PROTOCOL] -> allowed|denied [by POLICY]"


# ---- ends --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pods:
    """The pod of this name, or every pod of the workload of this name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """A node by its name; without one the node on which the other end is."""

    name: str = ""

    def __str__(self) -> str:
        return self.name or HOST


@dataclass(frozen=True, slots=True)
class Outside:
    """The world beyond the nodes: somewhere in it, or at an address."""

    address: Address | None = None

    def __str__(self) -> str:
        return WORLD if self.address is None else str(self.address)


End = Pods | Node | Outside


# ---- expectations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expectation:
    """``port`` is a number or the name of a port of the destination, 0 for ICMP (echo requests).

    ``families`` are IP versions, none for all that the sandbox has. Each of ``by`` (names, or
    namespace/name) must be among the policies that decide. ``path`` is where it stands in the file.
    """

    source: End
    target: End
    protocol: Protocol
    port: int | str
    allowed: bool
    families: tuple[int, ...] = ()
    by: tuple[str, ...] = ()
    path: str = ""

    @property
    def service(self) -> str:
        """``80/TCP``, or ``ICMP``."""
        return f"{self.port}/{self.protocol.name}" if self.port else self.protocol.name

    @property
    def verdict(self) -> str:
        return "allowed" if self.allowed else "denied"

    def __str__(self) -> str:
        over = f" over IPv{self.families[0]}" if len(self.families) == 1 else ""
        by = f" by {', '.join(self.by)}" if self.by else ""
        return f"{self.source} -> {self.target} {self.service}{over}: {self.verdict}{by}"


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """``manifests`` are files and folders, from where the test stands; ``families`` IP versions."""

    name: str
    manifests: tuple[str, ...]
    expect: tuple[Expectation, ...]
    nodes: int = 2
    routing: str = "overlay"
    family: str = "dual"

    @property
    def families(self) -> tuple[int, ...]:
        return _FAMILIES[self.family]


def parse_policy_test(object: Mapping[str, object], most_nodes: int) -> PolicyTest:
    """``most_nodes`` is how many a sandbox can have. Raises `ManifestError`."""
    with naming(object) as fields:
        fields.need("apiVersion").one_of((API_VERSION,))
        fields.only(_FIELDS)
        metadata = fields.get("metadata")
        name = metadata.fields(("name",)).text("name") if metadata else ""
        items = fields.need("expect").items()
        if not items:
            fields.place("expect").refuse("a test expects something: " + _SENTENCE)
        test = PolicyTest(
            name,
            tuple(item.name() for item in fields.items("manifests")),
            tuple(map(_expectation, items)),
            fields.number("nodes", 2, 1, most_nodes),
            fields.one_of("routing", ("overlay", "native"), "overlay"),
            fields.one_of("family", _FAMILIES, "dual"),
        )
        for item, expectation in zip(items, test.expect, strict=True):
            _check(item, expectation, test.families)
        return test


def _check(place: Place, expectation: Expectation, families: tuple[int, ...]) -> None:
    """Refuses what no sandbox of these families could try."""
    ends = (expectation.source, expectation.target)
    if not any(isinstance(end, Pods) for end in ends):
        place.refuse("policies are about pods: one end at least must be namespace/name", _both(expectation))
    for end in ends:
        version: int = end.address.version if isinstance(end, Outside) and end.address else 0
        if version and version not in (expectation.families or families):
            place.refuse(f"the address is of IPv{version}, which the test leaves out", str(end))
    for version in expectation.families:
        if version not in families:
            place.refuse("the pods of this test have no such addresses: see its family", f"IPv{version}")
    if isinstance(expectation.port, str) and not isinstance(expectation.target, Pods):
        place.refuse("only pods have ports with names: give a number", f'the port "{expectation.port}"')


def _both(expectation: Expectation) -> str:
    return f"{expectation.source} and {expectation.target}"


def _expectation(place: Place) -> Expectation:
    if isinstance(place.value, str):
        return _sentence(place, place.value)
    fields = place.fields(("from", "to", "port", "protocol", "family", "verdict", "by"))
    protocol, port = _port(fields)
    family = fields.get("family")
    return Expectation(
        _end(fields.need("from")),
        _end(fields.need("to")),
        protocol,
        port,
        _VERDICTS[fields.need("verdict").one_of(_VERDICTS)],
        _FAMILIES[family.one_of(_FAMILIES)] if family else (),
        _by(fields),
        place.path,
    )


def _end(place: Place) -> End:
    text = place.name()
    if text == WORLD:
        return Outside()
    if text == HOST:
        return Node()
    try:
        return Outside(ipaddress.ip_address(text))
    except ValueError:
        pass
    namespace, slash, name = text.partition("/")
    if not slash:
        if re.fullmatch(r"node[1-9][0-9]*", text):
            return Node(text)
        place.refuse(
            f"an end is namespace/pod or namespace/workload (is it default/{text}?), {WORLD}, an address "
            f"outside, {HOST}, or a node's name"
        )
    return Pods(checks.dns_label(Place(namespace, place.path)), checks.dns_subdomain(Place(name, place.path)))


def _port(fields: Fields) -> tuple[Protocol, int | str]:
    place, stated = fields.get("port"), fields.get("protocol")
    protocol = _protocol(stated) if stated else None
    if protocol is Protocol.ICMP:
        if place is not None:
            place.refuse("ICMP has no ports: an echo request is sent")
        return protocol, 0
    if place is None:
        return fields.place("port").refuse(
            "a port's number or name belongs here, or protocol: ICMP", "nothing"
        )
    if isinstance(place.value, int) and not isinstance(place.value, bool):
        return protocol or Protocol.TCP, checks.port_number(place)
    found, port = _port_word(place, place.name())
    if protocol is not None and "/" in place.name() and protocol is not found:
        place.refuse(f"the protocol is said twice, and once {protocol.name}")
    return protocol or found, port


def _port_word(place: Place, word: str) -> tuple[Protocol, int | str]:
    """``80``, ``53/UDP``, ``http``."""
    text, slash, name = word.partition("/")
    protocol = _protocol(Place(name, place.path)) if slash else Protocol.TCP
    if protocol is Protocol.ICMP:
        place.refuse("ICMP has no ports: write icmp instead of a port", word)
    if text.isdecimal():
        return protocol, checks.port_number(Place(int(text), place.path))
    return protocol, checks.port_name(Place(text, place.path))


def _protocol(place: Place) -> Protocol:
    value = place.value
    return _PROTOCOLS[
        Place(value.upper() if isinstance(value, str) else value, place.path).one_of(_PROTOCOLS)
    ]


def _by(fields: Fields) -> tuple[str, ...]:
    place = fields.get("by")
    if place is None:
        return ()
    if isinstance(place.value, str):
        return (place.name(),)
    return tuple(item.name() for item in place.items())


# ---- sentences ---------------------------------------------------------------------------------


def _sentence(place: Place, text: str) -> Expectation:
    words = _Words(place, text)
    words.take("from")
    source = _end(Place(words.next("who sends"), place.path))
    words.take("to")
    target = _end(Place(words.next("to whom"), place.path))
    protocol, port = _what(words)
    families: tuple[int, ...] = ()
    if words.skip("over"):
        families = _FAMILIES[Place(words.next("ipv4 or ipv6").lower(), place.path).one_of(_FAMILIES)]
    words.skip(*_ARROWS)
    verdict = Place(words.next("allowed or denied"), place.path).one_of(_VERDICTS)
    by = tuple(words.rest()) if words.skip("by") else ()
    words.end()
    return Expectation(source, target, protocol, port, _VERDICTS[verdict], families, by, place.path)


def _what(words: _Words) -> tuple[Protocol, int | str]:
    if words.skip("icmp", "ping"):
        return Protocol.ICMP, 0
    words.skip("on")
    words.take("port", "icmp")
    return _port_word(words.place, words.next("a port, as 80 or 53/UDP"))


class _Words:
    """The words of a sentence, one after the other."""

    def __init__(self, place: Place, text: str) -> None:
        self.place = place
        spaced = re.sub(r"->|=>|→|,", lambda mark: f" {mark[0].strip(',')} ", text)
        self._words = (re.sub(r"(?<=[^:]):\Z", "", word) for word in spaced.split())
        self._ahead = next(self._words, "")

    def next(self, wanted: str) -> str:
        if not self._ahead:
            self.place.refuse(f"{wanted} belongs at its end; a sentence is: {_SENTENCE}")
        word, self._ahead = self._ahead, next(self._words, "")
        return word

    def skip(self, *options: str) -> bool:
        """Whether the next word was one of these; then it has been passed."""
        if self._ahead.lower() not in options:
            return False
        self._ahead = next(self._words, "")
        return True

    def take(self, *options: str) -> None:
        if not self.skip(*options):
            found = f'"{self._ahead}"' if self._ahead else "the end"
            self.place.refuse(
                f"{' or '.join(options)} belongs there; a sentence is: {_SENTENCE}",
                f"{found} in {self.place.value!r}",
            )

    def rest(self) -> Iterator[str]:
        """Names, with commas or "and" between them."""
        yield self.next("the name of a policy")
        while self._ahead:
            word = self.next("")
            if word != "and":
                yield word

    def end(self) -> None:
        if self._ahead:
            self.place.refuse(f"nothing belongs behind the verdict but by POLICY; found {self._ahead!r}")

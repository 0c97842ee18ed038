"""Which metrics are made from flows, as Hubble's option for it says it.

Each is ``name`` or ``name:option;option``; an option is a word, or ``word=value|value`` (commas do as well):
``dns:query;ignoreAAAA``, ``drop:sourceContext=pod|dns;labelsContext=source_namespace,traffic_direction``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.metrics.contexts import OPTIONS, Contexts

#: By name, the options that a metric has beside contexts, in lower case.
METRICS: Final[Mapping[str, frozenset[str]]] = {
    "dns": frozenset({"query", "ignoreaaaa"}),
    "drop": frozenset(),
    "flow": frozenset(),
    "flows-to-world": frozenset({"any-drop", "port", "syn-only"}),
    "http": frozenset({"exemplars"}),
    "httpV2": frozenset({"exemplars"}),
    "icmp": frozenset(),
    "kafka": frozenset(),
    "policy": frozenset(),
    "port-distribution": frozenset(),
    "tcp": frozenset(),
    "tcp-health": frozenset(),
}

_ENDS: Final = (
    "sourceContext=workload-name|reserved-identity;destinationContext=workload-name|reserved-identity"
)
_NAMESPACES: Final = "labelsContext=source_namespace,destination_namespace"
#: What the dashboards that come with this package, and Hubble's, ask for.
DEFAULT: Final = (
    *(
        f"{name}:{_ENDS};{_NAMESPACES}"
        for name in ("drop", "tcp", "tcp-health", "flow", "icmp", "policy", "kafka")
    ),
    f"dns:query;{_ENDS};{_NAMESPACES}",
    f"flows-to-world:any-drop;port;{_ENDS};{_NAMESPACES}",
    "port-distribution",
    f"httpV2:exemplars=true;{_ENDS};{_NAMESPACES},source_workload,destination_workload,traffic_direction",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """``options``: those of the metric, with their values."""

    name: str
    contexts: Contexts
    options: Mapping[str, Sequence[str]]

    @classmethod
    def parse(cls, text: str) -> Setting:
        """ValueError that names what is wrong."""
        name, _, rest = text.partition(":")
        known = {each.lower(): each for each in METRICS}.get(name.strip().lower())
        if known is None:
            raise ValueError(f"{name!r} is none of the metrics {', '.join(METRICS)}")
        options: dict[str, tuple[str, ...]] = {}
        for part in rest.split(";"):
            word, _, values = part.strip().partition("=")
            if word:
                split = values.replace("\\,", ",").replace("|", ",").split(",")
                options[word.lower()] = tuple(value.strip() for value in split if value.strip())
        for word in options.keys() - OPTIONS - METRICS[known]:
            can = ", ".join(sorted(METRICS[known])) or "none of its own"
            raise ValueError(f"{known}: there is no option {word!r}; it has {can}, and contexts")
        try:
            contexts = Contexts.of(options)
        except ValueError as error:
            raise ValueError(f"{known}: {error}") from None
        return cls(known, contexts, {word: values for word, values in options.items() if word not in OPTIONS})

    def is_set(self, option: str) -> bool:
        return option in self.options and self.options[option] != ("false",)


def settings(texts: Sequence[str]) -> list[Setting]:
    """ValueError, also where two want the same names."""
    found = [Setting.parse(text) for text in texts]
    names = ["http" if each.name == "httpV2" else each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is asked for twice (http and httpV2 are two forms of one)")
    return found

"""Metrics as values: a family has a name, a kind, and a series for each combination of label values.

A name is as Prometheus shows it: a counter's ends with ``_total`` (OpenMetrics 1.0 demands it, and takes it
off again in its headings). Series of a `Counter`, `Gauge` or `Histogram` come to be with the first value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf, isnan
from typing import ClassVar, Final, NamedTuple

#: In seconds: as client libraries of Prometheus have them.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Exemplar(NamedTuple):
    """``labels`` as they are written; ``time`` in seconds since 1970."""

    labels: str
    value: float
    time: float


class Family(ABC):
    """What all kinds have in common."""

    kind: ClassVar[str]

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help
        self.labels = tuple(labels)

    @abstractmethod
    def lines(self, exemplars: bool) -> Iterator[str]:
        """Of its series, without the ends of lines; ``exemplars``: with them, where there are some."""

    def heading(self, openmetrics: bool) -> str:
        name = self.name.removesuffix("_total") if openmetrics and self.kind == "counter" else self.name
        explained = self.help.replace("\\", "\\\\").replace("\n", "\\n")
        return f"# HELP {name} {explained}\n# TYPE {name} {self.kind}\n"

    def _text(self, values: Sequence[str]) -> str:
        return labelled(self.labels, values)


class _Values(Family):
    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help, labels)
        self._values: dict[tuple[str, ...], float] = {}

    def lines(self, exemplars: bool) -> Iterator[str]:
        for values, value in self._values.items():
            text = self._text(values)
            yield f"{self.name}{{{text}}} {number(value)}" if text else f"{self.name} {number(value)}"

    def __getitem__(self, values: tuple[str, ...]) -> float:
        """0 for a series that is not there."""
        return self._values.get(values, 0)

    def series(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of labels, and the value."""
        yield from self._values.items()


class Counter(_Values):
    kind = "counter"

    def add(self, *values: str, by: float = 1) -> None:
        """``values`` of the labels, in their order."""
        assert len(values) == len(self.labels), self.name
        self._values[values] = self._values.get(values, 0) + by


class Gauge(_Values):
    kind = "gauge"

    def set(self, value: float, *values: str) -> None:
        assert len(values) == len(self.labels), self.name
        self._values[values] = value

    def remove(self, *values: str) -> None:
        self._values.pop(values, None)


class _Series:
    __slots__ = ("counts", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.sum = 0.0


class Histogram(Family):
    kind = "histogram"

    def __init__(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> None:
        """``buckets``: upper bounds, rising, without infinity."""
        super().__init__(name, help, labels)
        self._bounds = tuple(buckets)
        self._texts = bounds(buckets)
        self._series: dict[tuple[str, ...], _Series] = {}

    def observe(self, value: float, *values: str) -> None:
        assert len(values) == len(self.labels), self.name
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = _Series(len(self._bounds))
        series.counts[bisect_left(self._bounds, value)] += 1
        series.sum += value

    def series(self) -> Iterator[tuple[tuple[str, ...], Sequence[int], float]]:
        """Values of labels, how many fell into each bucket, and the sum."""
        for values, series in self._series.items():
            yield values, series.counts, series.sum

    def put(self, values: tuple[str, ...], counts: Sequence[int], total: float) -> None:
        """One series as another process has counted it, with the same buckets."""
        made = self._series[values] = _Series(len(self._bounds))
        made.counts[:], made.sum = counts, total

    def lines(self, exemplars: bool) -> Iterator[str]:
        for values, series in self._series.items():
            yield from histogram(self.name, self._text(values), self._texts, series.counts, series.sum)


#: Asked for what there is to tell at the moment.
Collector = Callable[[], Iterable[Family]]


def histogram(
    name: str,
    labels: str,
    bounds: Sequence[str],
    counts: Sequence[int],
    total: float,
    exemplars: Sequence[Exemplar | None] = (),
) -> Iterator[str]:
    """The lines of one series. ``counts``: how many fell into each bucket, not summed up, one more than there
    are ``bounds``; ``exemplars``, where there are any, the same."""
    begin, so_far = f"{labels}," if labels else "", 0
    for place, (bound, count) in enumerate(zip((*bounds, "+Inf"), counts, strict=True)):
        so_far += count
        example = exemplars[place] if exemplars else None
        yield f'{name}_bucket{{{begin}le="{bound}"}} {so_far}{marked(example)}'
    end = f"{{{labels}}}" if labels else ""
    yield f"{name}_sum{end} {number(total)}"
    yield f"{name}_count{end} {so_far}"


def bounds(buckets: Iterable[float]) -> tuple[str, ...]:
    """As they are written."""
    return tuple(repr(float(each)) for each in buckets)


def marked(exemplar: Exemplar | None) -> str:
    """What stands behind a value."""
    if exemplar is None:
        return ""
    return f" # {{{exemplar.labels}}} {number(exemplar.value)} {exemplar.time:.3f}"


_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


def labelled(names: Sequence[str], values: Sequence[str]) -> str:
    """``a="1",b="2"``: what stands between the braces."""
    return ",".join(
        [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)]
    )


def number(value: float) -> str:
    """As Go's ParseFloat reads it."""
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    if isnan(value):
        return "NaN"
    return f"{int(value)}" if value == int(value) and abs(value) < 1e15 else repr(float(value))

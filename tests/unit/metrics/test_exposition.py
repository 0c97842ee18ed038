"""The text that Prometheus reads; its own client library's parsers are the judge."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from axoneme.metrics.exposition import exposition, wants_openmetrics
from axoneme.metrics.families import Counter, Exemplar, Family, Gauge, Histogram, bounds, histogram
from axoneme.metrics.process import process_metrics


async def read(families: Iterable[Family], openmetrics: bool) -> dict[str, Metric]:
    text = (await exposition(families, openmetrics)).decode()
    parse = (
        openmetrics_parser.text_string_to_metric_families
        if openmetrics
        else parser.text_string_to_metric_families
    )
    return {each.name: each for each in parse(text)}


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_all_kinds_are_read_as_they_were_meant(openmetrics: bool) -> None:
    drops = Counter("cilium_drop_count_total", "Packets\ndropped \\ by reason", ("reason", "direction"))
    drops.add("Policy denied", "INGRESS", by=3)
    drops.add("Policy denied", "INGRESS")
    pods = Gauge("cilium_endpoint", "Pods")
    pods.set(2.5)
    took = Histogram("took_seconds", "Time", ("outcome",), (0.1, 1.0))
    for each in (0.1, 0.5, 7.0):
        took.observe(each, "success")
    found = await read([took, pods, drops], openmetrics)
    (drop,) = found["cilium_drop_count"].samples
    assert (drop.name, drop.labels, drop.value) == (
        "cilium_drop_count_total",
        {"reason": "Policy denied", "direction": "INGRESS"},
        4,
    )
    assert found["cilium_drop_count"].type == "counter"
    assert found["cilium_drop_count"].documentation == "Packets\ndropped \\ by reason"
    assert [each.value for each in found["cilium_endpoint"].samples] == [2.5]
    assert found["took_seconds"].type == "histogram"
    buckets = {each.labels["le"]: each.value for each in found["took_seconds"].samples if "le" in each.labels}
    assert buckets == {"0.1": 1, "1.0": 2, "+Inf": 3}
    rest = {each.name: each.value for each in found["took_seconds"].samples if "le" not in each.labels}
    assert rest == {"took_seconds_sum": pytest.approx(7.6), "took_seconds_count": 3}


@given(st.dictionaries(st.text(), st.floats() | st.integers(-(10**18), 10**18), max_size=8))
async def test_whatever_values_say_is_read_back(series: dict[str, float]) -> None:
    # The parser reads lines as Python does, which takes more for their ends than the formats do.
    series = {key: value for key, value in series.items() if len(f"x{key}x".splitlines()) == 1}
    made = Gauge("told", "", ("by",))
    for key, value in series.items():
        made.set(value, key)
    found = await read([made], openmetrics=False)
    read_back = {each.labels["by"]: each.value for each in found["told"].samples}
    assert read_back.keys() == series.keys()
    for key, value in series.items():
        assert read_back[key] == float(value) or (math.isnan(value) and math.isnan(read_back[key]))


async def test_exemplars_are_told_to_who_reads_openmetrics() -> None:
    class Requests(Family):
        kind = "histogram"

        def lines(self, exemplars: bool) -> Iterable[str]:  # type: ignore[override]
            example = Exemplar('traceID="4bf9"', 0.3, 1700000000.5) if exemplars else None
            return histogram(self.name, 'a="b"', bounds((1.0,)), [1, 0], 0.3, (example, None))

    text = (await exposition([Requests("took_seconds", "")], openmetrics=True)).decode()
    assert '_bucket{a="b",le="1.0"} 1 # {traceID="4bf9"} 0.3 1700000000.500\n' in text
    (family,) = openmetrics_parser.text_string_to_metric_families(text)
    example = family.samples[0].exemplar
    assert example is not None and example.labels == {"traceID": "4bf9"} and example.value == 0.3
    assert "traceID" not in (await exposition([Requests("took_seconds", "")], openmetrics=False)).decode()


async def test_families_of_one_name_stand_under_one_heading() -> None:
    first, second = Gauge("x", "X", ("by",)), Gauge("x", "X", ("by",))
    first.set(1, "a")
    second.set(2, "b")
    other = Gauge("y", "Y")
    other.set(3)
    text = (await exposition([first, other, second], openmetrics=True)).decode()
    assert text.count("# TYPE x gauge") == 1
    assert [each.value for each in (await read([first, other, second], True))["x"].samples] == [1, 2]


async def test_what_is_long_is_the_same_packed() -> None:
    many = Counter("many_total", "", ("n",))
    for n in range(5000):
        many.add(f"{n}")
    plain, packed = await exposition([many], True), await exposition([many], True, packed=True)
    assert gzip.decompress(packed) == plain and len(packed) < len(plain) / 4


def test_who_wants_what() -> None:
    # What Prometheus 2.42 sends.
    asked = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75"
    assert wants_openmetrics(f"{asked},text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert not wants_openmetrics("text/plain") and not wants_openmetrics("")


async def test_a_process_tells_of_itself() -> None:
    found = await read(process_metrics("axo")(), openmetrics=True)
    figures = {each.name: each.value for family in found.values() for each in family.samples}
    assert figures["axo_process_cpu_seconds_total"] > 0
    assert (
        1 << 20 < figures["axo_process_resident_memory_bytes"] < figures["axo_process_virtual_memory_bytes"]
    )
    assert 3 <= figures["axo_process_open_fds"] < figures["axo_process_max_fds"]
    assert figures["axo_process_start_time_seconds"] > 1.6e9

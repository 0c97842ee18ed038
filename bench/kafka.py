"""Apache Kafka's own measuring clients against Apache Kafka, with the proxy between them and without.

Client, node and broker are network namespaces of this machine, and packets cross the node either way. In turn: nothing
in between; the proxy, which judges every topic and tells of every request. A round before the first is not counted.
Prints the median of the rounds. Run as root: `.venv/bin/python bench/kafka.py [rounds]`; Apache Kafka comes by Maven.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "datapath")]

from kafka_lab import BROKER, Proxy, broker, java
from steered import PORT, Rig, rig_in, steered

from axoneme.model.kafkaapis import ROLES
from axoneme.model.l7 import KafkaRule

RELEASE = "3.9.1"
#: Topic: how many records of how many bytes, how they are produced, and whether they are consumed too.
LOADS = {
    "single": (20_000, 100, ("batch.size=0", "max.in.flight.requests.per.connection=1"), False),
    "small": (2_000_000, 100, ("linger.ms=5", "batch.size=65536"), True),
    "large": (60_000, 20_000, ("linger.ms=5", "batch.size=1000000"), True),
}
TITLES = {
    "single": "requests of one record of 100 bytes, one after the other",
    "small": "records of 100 bytes in batches",
    "large": "records of 20,000 bytes in batches",
}
RULES = tuple(KafkaRule(api_keys=ROLES[role], topic=topic) for role in ROLES for topic in LOADS)
_SENT = re.compile(
    r"records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), ([\d.]+) ms avg.* ([\d.]+) ms 99th"
)


def produce(rig: Rig, topic: str) -> tuple[float, float]:
    """Records and MB a second."""
    count, size, options, _ = LOADS[topic]
    out, err = java(
        rig, RELEASE, "org.apache.kafka.tools.ProducerPerformance",
        "--topic", topic, "--num-records", str(count), "--record-size", str(size), "--throughput", "-1",
        "--producer-props", f"bootstrap.servers={BROKER}:9092", "acks=1", *options,
        server=False,
    )  # fmt: skip
    found = _SENT.findall(out)
    if not found:
        sys.exit(f"the producer has not finished: {out}{err}")
    return float(found[-1][0]), float(found[-1][1])


def consume(rig: Rig, topic: str) -> tuple[float, float]:
    count, *_ = LOADS[topic]
    out, err = java(
        rig, RELEASE, "org.apache.kafka.tools.ConsumerPerformance", "--topic", topic, "--messages", str(count),
        "--timeout", "60000", "--hide-header",
    )  # fmt: skip
    fields = out.strip().splitlines()[-1].split(", ")
    try:
        return float(fields[5]), float(fields[3])
    except (IndexError, ValueError):
        sys.exit(f"the consumer has not finished: {out}{err}")


def main(rounds: int) -> None:
    found: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("rig", "broker", "proxy"):
            (place / name).mkdir()
        with rig_in(place / "rig") as rig, broker(rig, place / "broker", RELEASE):
            proxy = Proxy(rig, place / "proxy")
            try:
                for topic in LOADS:
                    java(rig, RELEASE, "org.apache.kafka.tools.TopicCommand", "--create", "--topic", topic)
                proxy.rules(*RULES)
                measure(rig, rounds, found)
            finally:
                proxy.close()
    print("| what | without a proxy | through it | ratio |\n|---|---|---|---|")
    for topic, (*_, consumed) in LOADS.items():
        for what in ("produced", "consumed") if consumed else ("produced",):
            (with_records, with_bytes), (records, plain_bytes) = (
                tuple(statistics.median(each) for each in zip(*found[what, topic, proxied], strict=True))
                for proxied in (True, False)
            )
            print(
                f"| {TITLES[topic]}, {what} | {records:,.0f}/s, {plain_bytes:.0f} MB/s "
                f"| {with_records:,.0f}/s, {with_bytes:.0f} MB/s | {with_records / records:.2f} |"
            )


def measure(rig: Rig, rounds: int, found: dict[tuple[str, str, bool], list[tuple[float, float]]]) -> None:
    works: dict[str, Callable[[Rig, str], tuple[float, float]]] = {"produced": produce, "consumed": consume}
    for number in range(rounds + 1):
        for proxied in (True, False) if number % 2 else (False, True):
            rig.run(rig.proxy, "nft flush ruleset")
            if proxied:
                rig.run(rig.proxy, "nft -f -", steered({None: PORT}))
            for topic in LOADS:
                for what, work in works.items():
                    if what == "produced" or LOADS[topic][-1]:
                        figures = work(rig, topic)
                        print("with" if proxied else "without", what, topic, figures, file=sys.stderr)
                        if number:
                            found.setdefault((what, topic, proxied), []).append(figures)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)

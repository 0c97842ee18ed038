"""History: what a flow costs on its way to disk, how large it is there, and how long questions take.

A flow server's stream of some millions of flows (of pods of some workloads, with services and policies, as a
cluster of middle size has them) goes through the real parts: parcels, the spool, the converter (a process), and
then DuckDB and the reader of the past. CPU is that of the processes that do the part.

    .venv/bin/python bench/history.py [--flows 3000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = ["src", "tests"]

import msgspec
import numpy as np

from axoneme.flows.events import Records, stamp
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.recordsrequest import Position
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.store import FlowStore
from axoneme.flows.transfer import Packer, Parcel
from axoneme.history import recorded, sql
from axoneme.history.folder import Folder
from axoneme.history.spool import Spool
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef
from unit.flows import records as made

PODS, WORKLOADS, PAGE, SPOOL = 500, 60, 1024, 32 << 20
START = 1_760_000_000_000_000_000
#: Tells how much memory it had at most, in KiB, which getrusage mixes with its parent's.
CONVERT = """
import sys
from axoneme.history.convert import main
if main(sys.argv[1:]):
    sys.exit(1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
QUERIES = {
    "count": "SELECT count(*) FROM flows",
    "drops by pair": "SELECT source_workload, destination_workload, drop_reason, count(*) FROM flows"
    " WHERE verdict = 'DROPPED' GROUP BY ALL ORDER BY 4 DESC",
    "busiest pairs": "SELECT source_workload, destination_workload, sum(bytes + reply_bytes) FROM flows"
    " WHERE event = 'end' GROUP BY ALL ORDER BY 3 DESC LIMIT 20",
    "p99 by minute": "SELECT time_bucket(INTERVAL 1 MINUTE, time) AS minute,"
    " quantile_cont(duration_ns, 0.99) FROM flows WHERE event = 'end' GROUP BY ALL",
    "one pod": "SELECT * FROM flows WHERE source_pod = 'app-7-0' AND verdict = 'DROPPED' LIMIT 100",
    "label": "SELECT count(*) FROM flows WHERE list_contains(source_labels, 'k8s:app=app-7')",
}


def cluster() -> FlowLog:
    names = made.some_names()
    for number in range(PODS):
        app = f"app-{number % WORKLOADS}"
        labels = (
            f"k8s:app={app}",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:io.kubernetes.pod.namespace=shop",
        )
        end = End(labels, "shop", f"{app}-{number // WORKLOADS}", "Deployment", app, f"node{number % 20}")
        names.put(str(number), [address(number)], end)
    services = ServiceNames()
    for number in range(1, WORKLOADS + 1):
        services.put(number, ServicePort(f"shop/app-{number - 1}", "http"))
    rules = {
        number: (PolicyRef("NetworkPolicy", "shop", f"app-{number - 1}", "spec.ingress[0]"),)
        for number in range(1, WORKLOADS + 1)
    }
    return FlowLog(
        "node1", FlowStore(made.DTYPE, 1, 1), names, rules.get, services, Requests(), made.VOCABULARY
    )


def address(number: int) -> bytes:
    return address_bytes(f"10.1.{number >> 8}.{number & 255}")


def flows(log: FlowLog, count: int, begin: int, chance: np.random.Generator) -> Records:
    """Half of them begin connections, half end them; one of fifty is a drop."""
    events = np.repeat(made.event(), count)
    packed = np.frombuffer(b"".join(map(address, range(PODS))), np.uint8).reshape(-1, 16)
    # Popular ones are called more than others.
    source, target = (np.minimum(chance.zipf(1.3, count) - 1, PODS - 1) for _ in range(2))
    events["source"], events["destination"] = packed[source], packed[target]
    events["source_identity"], events["destination_identity"] = (
        1000 + source % WORKLOADS,
        1000 + target % WORKLOADS,
    )
    events["source_port"] = chance.integers(32768, 61000, count)
    events["destination_port"] = 8080
    events["service"], events["flags"] = 1 + target % WORKLOADS, made.SERVED
    events["frontend_port"] = 80
    events["frontend"] = packed[target % WORKLOADS]
    events["kind"] = np.where(np.arange(count) % 2, made.END, made.NEW)
    events["time"] = begin + np.cumsum(chance.integers(1000, 400_000, count))
    ended = events["kind"] == made.END
    events["started"] = np.where(
        ended, events["time"] - chance.integers(100_000, 5_000_000, count).astype(np.uint64), 0
    )
    events["packets"] = np.where(ended[:, None], chance.integers(4, 40, (count, 2)), 0)
    events["bytes"] = np.where(ended[:, None], chance.integers(300, 20_000, (count, 2)), 0)
    events["ingress_rule"] = 1 + target % WORKLOADS
    dropped = chance.random(count) < 0.02
    events["kind"][dropped], events["reason"][dropped] = made.DROP, made.DEFAULT_DENY
    records = stamp(events, made.DTYPE, START)
    log.names.resolve(records)
    return records


@contextmanager
def timed(what: str, count: int, children: bool = False) -> Iterator[None]:
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before, began = resource.getrusage(who), time.perf_counter()
    yield
    used, took = resource.getrusage(who), time.perf_counter() - began
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(f"{what:<42} {count / took / 1e3:8.0f} k flows/s   {cpu / count * 1e6:6.2f} us of CPU a flow")


def write(folder: Folder, count: int) -> None:
    log, chance, packer = cluster(), np.random.default_rng(1), None
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    parts = [flows(log, min(1 << 18, count - at), at * 200_000, chance) for at in range(0, count, 1 << 18)]
    packer = Packer(log)
    lines: list[bytes] = []
    with timed("flow server: records to parcels to lines", count):
        for part in parts:
            for at in range(0, len(part), PAGE):
                lines.append(encode(packer.pack(part[at : at + PAGE], Position("m", at, 0))) + b"\n")
    del parts
    spools: list[Path] = []
    first = decode(lines[0])
    with timed("keeper: lines to the spool", count):
        spool = None
        for line in lines:
            parcel = decode(line)
            if spool is None or spool.size >= SPOOL:
                if spool is not None:
                    spool.close()
                spool = Spool(folder.new_spool(time.time_ns()))
                spools.append(spool.path)
                if parcel is not first:  # a new connection tells all that is needed
                    spool.write(head(log, first))
            spool.write(encode(parcel) + b"\n")
    assert spool is not None
    spool.close()
    print(f"{'spool':<42} {sum(len(line) for line in lines) / count:8.1f} bytes a flow")
    del lines
    with timed("converter: spools to tables (a process)", count, children=True):
        command = [sys.executable, "-c", CONVERT, *map(str, spools)]
        done = subprocess.run(
            command, check=True, env={"PYTHONPATH": "src"}, stdout=subprocess.PIPE, text=True
        )
    most = int(done.stdout)
    tables = folder.tables()
    size = sum(each.stat().st_size for each in tables)
    print(
        f"{'tables':<42} {size / count:8.1f} bytes a flow, {len(tables)} files; converter {most >> 10} MiB at most"
    )


def head(log: FlowLog, first: dict[str, object]) -> bytes:
    """The layout, and all ends, as the first parcels of a connection bring them."""
    ends = {row: log.names[row] for row in range(len(log.names))}
    rules = {number: log.rules(number) for number in range(1, WORKLOADS + 1)}
    services = {number: log.services.get(number) for number in range(1, WORKLOADS + 1)}
    layout = msgspec.convert(first["layout"], dict)
    parcel = {
        "position": first["position"],
        "layout": layout,
        "ends": ends,
        "rules": rules,
        "services": services,
    }
    line = msgspec.json.encode(parcel) + b"\n"
    msgspec.json.decode(line, type=Parcel)
    return line


def ask(directory: Path, count: int) -> None:
    history = recorded.NodeHistory(directory)
    files, rest, _ = history.files()
    for name, query in QUERIES.items():
        took = []
        for _ in range(3):
            began = time.perf_counter()
            answer = sql.answered(files, rest, query)
            took.append(time.perf_counter() - began)
        print(f"SQL, {name:<37} {min(took) * 1e3:8.0f} ms   {answer.num_rows} rows")
    span = history.span()
    assert span is not None
    middle = sum(span) // 2
    for name, wanted in (
        ("all of it, drops", recorded.Wanted(filters=[FlowFilter(verdict=("DROPPED",))])),
        ("10 s in the middle", recorded.Wanted(middle, middle + 10**10)),
        ("the last 100 drops", recorded.Wanted(filters=[FlowFilter(verdict=("DROPPED",))], last=100)),
    ):
        began = time.perf_counter()
        found = sum(len(page.records) for page in history.pages(wanted))
        print(f"time travel, {name:<29} {(time.perf_counter() - began) * 1e3:8.0f} ms   {found} flows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=3_000_000)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    directory = arguments.folder or Path(tempfile.mkdtemp(prefix="axoneme-history-"))
    folder = Folder(directory)
    folder.make()
    try:
        write(folder, arguments.flows)
        ask(directory, arguments.flows)
    finally:
        if arguments.folder is None:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()

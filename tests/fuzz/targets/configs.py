"""Files that a node reads: configuration, a sandbox's plan, records of pods, the journal of rules."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from axoneme.agent import config as agent
from axoneme.flows.rules import RuleJournal, RuleWriter
from axoneme.flowserver import config as flows
from axoneme.sandbox import planfile
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.plan import Plan
from axoneme.sources.config import ConfigError
from fuzz.target import Target, says_why

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-files-")
_FILE = Path(_FOLDER.name) / "file"


def _configs() -> Iterable[bytes]:
    yield b"""node: node1
directory: /run/axoneme
store: {kind: sqlite, path: /var/lib/axoneme/store.db}
cluster_pool: [{cidr: 10.244.0.0/16, node_prefix_length: 24}, {cidr: 'fd00::/56', node_prefix_length: 64}]
families: [ipv4]
uplinks: [eth0]
underlay_addresses: [192.0.2.1]
labels: ['k8s:app', '!k8s:build']
tables: {flows: 1024, policies: 4096}
flow_history: {flows: 10, drops: 5}
"""
    yield b'{"node": "n1", "directory": "d", "store": {"kind": "etcd", "endpoints": ["http://127.0.0.1:2379"]}}'
    yield b"a: &a [*a]\nb: !!python/object/apply:os.system [x]\n"


def check_config(data: bytes) -> None:
    """A configuration, or an error that names the file; both processes read the same one."""
    _FILE.write_bytes(data)
    for module in (agent, flows):
        try:
            module.load(_FILE)
        except ConfigError as error:
            says_why(error)
            assert str(_FILE) in str(error)


def _plans() -> Iterable[bytes]:
    layout: Any = SimpleNamespace(plan=_FILE, directory=_FILE.parent, name="a")
    planfile.save(Plan(name="a"), layout)
    yield _FILE.read_bytes()


def check_plan(data: bytes) -> None:
    _FILE.write_bytes(data)
    layout: Any = SimpleNamespace(plan=_FILE, directory=_FILE.parent, name="a")
    try:
        planfile.load(layout)
    except SandboxError as error:
        says_why(error)


def _journals() -> Iterable[bytes]:
    yield b"""{"rule": 77, "refs": [{"kind": "NetworkPolicy", "namespace": "a", "name": "b", "rule": "spec.ingress[0]"}]}
{"subject": 300, "direction": "ingress", "rule": 78}
{"identity": 16777216, "labels": ["cidr:192.0.2.0/24", "reserved:world"]}
{"service": 12, "name": "shop/web", "port": "http"}
"""


def check_journal(data: bytes) -> None:
    """Lines that are none are counted and passed over, and a writer goes on behind them."""
    _FILE.write_bytes(data)
    journal = RuleJournal(_FILE)
    journal.catch_up()
    assert journal.malformed <= len(data.splitlines())
    writer = RuleWriter(_FILE)
    writer.identities({(1 << 24) + 5: ["cidr:10.0.0.0/8", f"x:{len(data)}"]})
    writer.close()
    journal = RuleJournal(_FILE)
    journal.catch_up()
    assert journal.take_identities()[(1 << 24) + 5] == ("cidr:10.0.0.0/8", f"x:{len(data)}")


TARGETS = [
    Target("configuration", check_config, _configs),
    Target("plan", check_plan, _plans),
    Target("rule-journal", check_journal, _journals),
]

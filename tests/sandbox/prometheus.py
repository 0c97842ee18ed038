"""A Prometheus for tests, within a network namespace: what it scrapes, and what it answers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from two_nodes import inside

_PORT = 9090
#: Seconds, between scrapes and until it has to be ready.
INTERVAL, _PATIENCE = 1, 20.0

#: A series as Prometheus answers: its labels, and its value at a time.
Series = dict[str, Any]


class Prometheus:
    def __init__(self, namespace: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self._namespace = namespace
        self._process = process
        self._log = log

    def _get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{_PORT}{path}?{urllib.parse.urlencode(query)}"
        with inside(self._namespace), urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, expression: str) -> list[Series]:
        """What there is now. HTTPError for an expression that is none."""
        found: list[Series] = self._get("/api/v1/query", query=expression)["result"]
        return found

    def names(self) -> set[str]:
        """Of all metrics that were scraped."""
        return set(self._get("/api/v1/label/__name__/values"))

    def exemplars(self, expression: str) -> list[Series]:
        window = {"start": str(time.time() - 600), "end": str(time.time() + 1)}
        found: list[Series] = self._get("/api/v1/query_exemplars", query=expression, **window)
        return found

    def targets(self) -> dict[str, str]:
        """By job: how it is, or why its last scrape failed."""
        found = self._get("/api/v1/targets")["activeTargets"]
        return {each["labels"]["job"]: each["lastError"] or each["health"] for each in found}

    def wait(self, expression: str, timeout: float = 15.0) -> list[Series]:
        """As soon as there is something."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if found := self.query(expression):
                return found
            time.sleep(0.2)
        raise AssertionError(f"nothing for {timeout:g} s: {expression}; targets: {self.targets()}")

    def _ready(self) -> None:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if set(self.targets().values()) == {"up"}:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"Prometheus: {self._log.read_text()[-3000:]}")


@contextmanager
def prometheus(
    namespace: Path, folder: Path, jobs: dict[str, int], labels: dict[str, str], rules: str = ""
) -> Iterator[Prometheus]:
    """``jobs``: ports on the loopback address there; ``labels``: of all that they tell."""
    config: dict[str, Any] = {
        "global": {"scrape_interval": f"{INTERVAL}s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": "node1", **labels}}
                ],
            }
            for job, port in jobs.items()
        ],
    }
    if rules:
        (folder / "rules.yaml").write_text(rules)
        config["rule_files"] = ["rules.yaml"]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("nsenter", f"--net={namespace}", "prometheus"),
                *(f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"),
                *(f"--web.listen-address=127.0.0.1:{_PORT}", "--enable-feature=exemplar-storage"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        made = Prometheus(namespace, process, log)
        made._ready()
        yield made
    finally:
        process.terminate()
        process.wait(20)

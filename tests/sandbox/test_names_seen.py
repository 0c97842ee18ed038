"""Names that pods ask for are seen by one annotation, and become policies by name."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from runtime import Live, live_as

from axoneme.cli.place import Place
from axoneme.cli.policypreview import preview as preview_command
from axoneme.cli.policysuggest import suggest as suggest_command
from axoneme.sandbox.client import Verdict
from axoneme.sandbox.plan import IPV4_WORLD

pytestmark = pytest.mark.slow

MANIFESTS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {axoneme.io/visibility: dns}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: c, image: i, command: [sleep, infinity]}]}
"""
ZONE = f"""$ORIGIN far.test.
www A {IPV4_WORLD[1]}
plain A {IPV4_WORLD[2]}
"""
LOOK_UP = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"


class Shop(Live):
    def look_up(self, name: str) -> str:
        """As a program in the pod does; empty when there is no answer."""
        axo = (sys.executable, "-m", "axoneme.cli", "--sandbox", self.name, "exec", "-n", "shop", "client")
        done = subprocess.run(
            (*axo, "--", sys.executable, "-c", LOOK_UP, name),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.strip()

    def connects(self, address: str) -> bool:
        return self.probe(self.namespace("client", "shop"), address, 80, timeout=1.5).verdict in (
            Verdict.CONNECTED,
            Verdict.REFUSED,
        )

    def axo(self, command: Any, *arguments: str) -> Any:
        found = CliRunner().invoke(
            command, arguments, obj=Place(sandbox=self.name, named=True), standalone_mode=False
        )
        assert found.exception is None, found.output
        return json.loads(found.stdout)

    def listening(self) -> None:
        def there() -> bool:
            found = [each for agent in self.agents() for each in agent.call("status")["listeners"]]
            return bool(found) and all(each["state"] == "ready" for each in found)

        self.wait(there, "listeners", 30)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    zone = tmp_path_factory.mktemp("dns") / "world.zone"
    zone.write_text(ZONE)
    with live_as(Shop, "seennames", MANIFESTS, nodes=1, zone=str(zone), dns=True) as runtime:
        runtime.listening()
        runtime.wait(lambda: runtime.look_up("www.far.test"), "names are served through the proxy", 30)
        yield runtime


def test_names_become_policies(shop: Shop, tmp_path: Path) -> None:
    since = time.time_ns()
    assert shop.look_up("www.far.test") == IPV4_WORLD[1]
    assert shop.connects(IPV4_WORLD[1])
    wanted = [{"dns_query": [r"^www\.far\.test\.$"], "event": ["response"], "since": since}]

    def answered() -> list[Any]:
        return [each for each in shop.flows(filters=wanted) if each["l7"]["dns"].get("ips")]

    flow = shop.wait(answered, "the answer is seen")[0]
    assert flow["l7"]["dns"]["ips"] == [IPV4_WORLD[1]]
    assert flow["destination"]["pod_name"] == "client"
    moment = datetime.fromtimestamp(since / 1e9, UTC).isoformat()
    (policy,) = shop.axo(suggest_command, "-n", "shop", "--since", moment, "-o", "json")["items"]
    named = [rule for rule in policy["spec"]["egress"] if "toFQDNs" in rule]
    assert [rule["toFQDNs"] for rule in named] == [[{"matchName": "www.far.test"}]]
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    report = shop.axo(preview_command, "-f", str(path), "--since", moment, "-o", "json")
    assert report["changed"] == []
    shop.apply(path.read_text())
    shop.policies_loaded(1)
    shop.listening()
    shop.wait(lambda: shop.look_up("www.far.test"), "the name is answered", 30)
    assert shop.connects(IPV4_WORLD[1])
    assert shop.look_up("plain.far.test") == ""
    assert not shop.connects(IPV4_WORLD[2])

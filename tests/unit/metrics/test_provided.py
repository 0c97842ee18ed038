"""The dashboards and rules that come with the package; Prometheus' own tool judges the rules."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from axoneme.cli.metrics import group
from axoneme.metrics.provided import dashboards, grafana, rules

promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool (package prometheus) is not here"
)


@promtool
def test_every_rule_fires_when_it_should_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules())
    cases = Path(__file__).with_name("rules_test.yaml").read_text()
    (tmp_path / "test.yaml").write_text(cases)
    for command in (("check", "rules", "rules.yaml"), ("test", "rules", "test.yaml")):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    there = {rule["alert"] for each in yaml.safe_load(rules())["groups"] for rule in each["rules"]}
    tried = {
        case["alertname"]
        for each in yaml.safe_load(cases)["tests"]
        for case in each["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tried == there


def test_dashboards_are_what_grafana_imports(tmp_path: Path) -> None:
    done = CliRunner().invoke(group, ["dashboards", "--write", str(tmp_path / "made")], obj=None)
    assert done.exit_code == 0, done.output
    made = {path.name: json.loads(path.read_text()) for path in (tmp_path / "made").iterdir()}
    assert sorted(made) == [
        f"axoneme-{name}.json" for name in ("agent", "flows", "health", "policies", "requests")
    ]
    assert len({each["uid"] for each in made.values()}) == len(made)
    for each in made.values():
        ids = [panel["id"] for panel in each["panels"]]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in each["panels"]:
            place = panel["gridPos"]
            cells = {
                (place["x"] + across, place["y"] + down)
                for across in range(place["w"])
                for down in range(place["h"])
            }
            assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
            taken |= cells
        graphs = [panel for panel in each["panels"] if panel["type"] != "row"]
        assert all(panel["targets"] for panel in graphs)


def test_names_get_the_prefixes_of_the_cluster() -> None:
    for text in (
        rules("ours", "flows"),
        str([grafana(each) for each in dashboards("ours", "flows").values()]),
    ):
        assert "cilium_" not in text and "hubble_" not in text
        assert "ours_bpf_map_pressure" in text and "flows_drop_total" in text and "axoneme_" in text

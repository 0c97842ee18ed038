"""Dashboards for Grafana and rules for Prometheus, which come with the package.

A dashboard is written down as rows of panels with queries (``dashboards/*.yaml``), from which the JSON that
Grafana imports is made: what panels have in common is said here, once. Names of metrics get the prefixes that
a cluster uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

import msgspec

from axoneme.model.yamltext import single

_WIDTH, _HEIGHT = 8, 8
#: Grafana's schema for what is written here: its version 9 and later read it.
_SCHEMA: Final = 38
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


class Panel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``queries``: by legend."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    exemplars: bool = False


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    panels: list[Panel]


class Dashboard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``instances``: the metric whose instances can be chosen from."""

    title: str
    uid: str
    about: str
    instances: str
    rows: list[Row]

    def expressions(self) -> Iterator[str]:
        for row in self.rows:
            for panel in row.panels:
                yield from panel.queries.values()


def dashboards(prefix: str = "cilium", flows_prefix: str = "hubble") -> dict[str, Dashboard]:
    """By name of their file, without its ending."""
    folder = resources.files("axoneme.metrics") / "dashboards"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        name, dot, ending = file.name.rpartition(".")
        if dot and ending == "yaml":
            text = _prefixed(file.read_text(), prefix, flows_prefix)
            found[name] = msgspec.convert(single(text.encode(), file.name), Dashboard)
    return found


def rules(prefix: str = "cilium", flows_prefix: str = "hubble") -> str:
    """A file of rules for Prometheus."""
    text = (resources.files("axoneme.metrics") / "rules.yaml").read_text()
    return _prefixed(text, prefix, flows_prefix)


def _prefixed(text: str, prefix: str, flows_prefix: str) -> str:
    for usual, wanted in (("cilium", prefix), ("hubble", flows_prefix)):
        text = re.sub(rf"\b{usual}_(?=[a-z])", f"{wanted}_", text)
    return text


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana imports."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        panels.append(
            {"type": "row", "title": row.title, "gridPos": _place(0, top, 24, 1), "collapsed": False}
        )
        top += 1
        for number, panel in enumerate(row.panels):
            down, across = divmod(number, 24 // _WIDTH)
            place = _place(across * _WIDTH, top + down * _HEIGHT, _WIDTH, _HEIGHT)
            panels.append(_panel(panel, place))
        top += -(-len(row.panels) // (24 // _WIDTH)) * _HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "title": dashboard.title,
        "uid": dashboard.uid,
        "description": dashboard.about,
        "tags": ["axoneme"],
        "schemaVersion": _SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables(dashboard.instances))},
        "panels": panels,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": _DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "exemplar": panel.exemplars,
        }
        for number, (legend, expression) in enumerate(panel.queries.items())
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _variables(instances: str) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    query = f"label_values({instances}, instance)"
    yield {
        "name": "instance",
        "type": "query",
        "label": "Node",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }

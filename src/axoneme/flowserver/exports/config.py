"""Which flows go where: a file in the form of Cilium's dynamic exporter (``flowLogs``), and what it has not.

flowLogs:
- name: drops
  filePath: /var/log/axoneme/drops.log
  fieldMask: [time, source.pod_name, destination.pod_name, verdict, drop_reason_desc]
  includeFilters: [{verdict: [DROPPED]}]
  excludeFilters: [{source_pod: ["kube-system/"]}]
  fileMaxSizeMb: 10
  fileMaxBackups: 5
  fileCompress: true
  end: "2026-12-24T18:00:00Z"
- name: collector
  otlp: {endpoint: "https://collector:4318", headers: {authorization: "Bearer …"}}
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from axoneme.flowserver.exports.masks import FieldMask
from axoneme.sources.config import ConfigError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class OtlpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``endpoint``: of a collector that takes OTLP over HTTP (``/v1/logs`` and ``/v1/metrics`` are put behind
    it). ``ca``, ``certificate`` and ``key``: files. ``interval``: seconds between two sets of metrics."""

    endpoint: str
    logs: bool = True
    metrics: bool = True
    headers: dict[str, str] = {}
    ca: str = ""
    certificate: str = ""
    key: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    interval: Annotated[float, msgspec.Meta(gt=0)] = 30.0

    def check(self) -> None:
        """ValueError for what would send flows over a network for all to read, or nowhere."""
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"otlp.endpoint: {self.endpoint!r} is no URL; give https://HOST:4318")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(
                f"otlp.endpoint: {self.endpoint} is plain HTTP to another machine, and flows do not leave "
                "this one in the clear; give https://, or a collector on 127.0.0.1"
            )
        if bool(self.certificate) != bool(self.key):
            raise ValueError("otlp: certificate and key belong together; one is missing")


class ExportConfig(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """``file_path``: a file, or ``stdout``. Filters are Hubble's ``flow.FlowFilter``: a flow goes out that
    one to include accepts (or all do, without any), and none to exclude. 0 means the default."""

    name: str
    file_path: str = ""
    otlp: OtlpConfig | None = None
    field_mask: tuple[str, ...] = ()
    include_filters: tuple[dict[str, Any], ...] = ()
    exclude_filters: tuple[dict[str, Any], ...] = ()
    file_max_size_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    file_max_backups: Annotated[int, msgspec.Meta(ge=0)] = 0
    file_compress: bool = False
    end: datetime | None = None
    field_aggregate: tuple[str, ...] = ()
    aggregation_interval: str = "0s"

    @property
    def until(self) -> int | None:
        """When it ends, in ns of the wall clock."""
        return None if self.end is None else int(self.end.astimezone().timestamp()) * 1_000_000_000

    def check(self) -> None:
        """ValueError."""
        if bool(self.file_path) == (self.otlp is not None):
            raise ValueError("needs either filePath or otlp")
        if self.file_path and self.file_path != "stdout" and not Path(self.file_path).is_absolute():
            raise ValueError(f"filePath: {self.file_path!r} is not absolute")
        if self.otlp:
            self.otlp.check()
        if self.field_aggregate:
            raise ValueError("fieldAggregate: flows are not added up here; leave it out, or use flow metrics")
        FieldMask(self.field_mask)


class _File(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    flow_logs: tuple[ExportConfig, ...] = ()


def parse(text: bytes, origin: str) -> dict[str, ExportConfig]:
    """By name. Raises `ConfigError`."""
    import yaml

    try:
        content = yaml.safe_load(text)
        found = msgspec.convert(content or {}, _File).flow_logs
        for number, each in enumerate(found):
            try:
                each.check()
            except ValueError as error:
                raise ValueError(f"flowLogs[{number}] {each.name}: {error}") from None
        for field, values in (
            ("name", [each.name for each in found]),
            ("filePath", [each.file_path for each in found if each.file_path not in ("", "stdout")]),
        ):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"flowLogs: {field}: {', '.join(twice)}: twice")
    except (yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{origin}: {error}") from None
    return {each.name: each for each in found}

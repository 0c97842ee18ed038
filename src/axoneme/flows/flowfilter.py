"""Which flows somebody wants to see, as a value that goes over the wire.

In a `FlowFilter` the values of one field are alternatives, and all fields that are given must hold.
Several filters are alternatives again, and ``not`` filters take away from what the others let
through. A field without prefix is about either end; ``from_`` is the source, ``to_`` the destination.
"""

from __future__ import annotations

import msgspec


class FlowFilter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Pods are ``name``, ``namespace/name`` (the start of a name is enough) or ``namespace/``;
    services the same; workloads ``name`` or ``kind/name``; labels selectors as kubectl takes them; addresses
    one address or a prefix; identities numbers or reserved names; times ns of the wall clock. Of requests:
    statuses ``404`` or ``5+`` (which begin with 5), paths, URLs, queries and topics regular expressions that
    match somewhere, headers ``name: value``."""

    verdict: tuple[str, ...] = ()
    pod: tuple[str, ...] = ()
    from_pod: tuple[str, ...] = ()
    to_pod: tuple[str, ...] = ()
    namespace: tuple[str, ...] = ()
    from_namespace: tuple[str, ...] = ()
    to_namespace: tuple[str, ...] = ()
    workload: tuple[str, ...] = ()
    from_workload: tuple[str, ...] = ()
    to_workload: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    from_label: tuple[str, ...] = ()
    to_label: tuple[str, ...] = ()
    identity: tuple[int | str, ...] = ()
    from_identity: tuple[int | str, ...] = ()
    to_identity: tuple[int | str, ...] = ()
    service: tuple[str, ...] = ()
    from_service: tuple[str, ...] = ()
    to_service: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    from_ip: tuple[str, ...] = ()
    to_ip: tuple[str, ...] = ()
    port: tuple[int, ...] = ()
    from_port: tuple[int, ...] = ()
    to_port: tuple[int, ...] = ()
    protocol: tuple[int | str, ...] = ()
    node: tuple[str, ...] = ()
    reason: tuple[int | str, ...] = ()
    direction: tuple[str, ...] = ()
    event: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    http_status: tuple[str, ...] = ()
    http_method: tuple[str, ...] = ()
    http_path: tuple[str, ...] = ()
    http_url: tuple[str, ...] = ()
    http_header: tuple[str, ...] = ()
    dns_query: tuple[str, ...] = ()
    kafka_topic: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None


class FilterError(ValueError):
    """A value in a filter that means nothing; says which field, and what would be right."""

    def __init__(self, field: str, value: object, right: str) -> None:
        super().__init__(f"filter {field}: {value!r} is not {right}")

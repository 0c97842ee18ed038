"""What leaves a flow server in bulk means the same where it arrives."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from axoneme.flows.flow import HTTP, Layer7
from axoneme.flows.flowfilter import FlowFilter
from axoneme.flows.flowlog import FlowLog
from axoneme.flows.names import End
from axoneme.flows.recordsrequest import Position
from axoneme.flows.requests import Requests
from axoneme.flows.servicenames import ServiceNames, ServicePort
from axoneme.flows.store import FlowStore
from axoneme.flows.transfer import Packer, Parcel, Unpacker
from axoneme.identity.prefixes import address_bytes
from axoneme.model.policy import PolicyRef
from unit.flows import records as made

AT = Position("memory", 0, 0)


def some_log() -> FlowLog:
    names = made.some_names()
    names.put("client", [address_bytes("10.0.0.1")], End(("k8s:app=client",), "shop", "client-1"))
    names.put("web", [address_bytes("10.0.0.2")], End(("k8s:app=web",), "shop", "web-1", "Deployment", "web"))
    services = ServiceNames()
    services.put(9, ServicePort("shop/web", "http"))
    rules = {7: (PolicyRef("NetworkPolicy", "shop", "web", "spec.ingress[0]"),)}
    return FlowLog(
        "node1",
        FlowStore(made.DTYPE, 8, 8),
        names,
        rules.get,
        services,
        Requests(),
        made.VOCABULARY,
    )


def sent(parcel: Parcel) -> Parcel:
    """Over a wire."""
    return msgspec.json.decode(msgspec.json.encode(parcel), type=Parcel)


def test_flows_are_the_same_on_the_other_side() -> None:
    log = some_log()
    number = log.requests.put(Layer7("REQUEST", http=HTTP(403, "GET", "http://web/")), True)
    records = made.records(
        made.event(service=9, flags=made.SERVED, ingress_rule=7),
        made.event(kind=made.DROP, reason=made.DEFAULT_DENY, ingress_rule=7, flags=made.INGRESS),
        made.event(kind=129, reason=2),
        made.event(source="2001:db8::1", kind=made.END, packets=[3, 4], bytes=[5, 6]),
        names=log.names,
    )
    records["request"][2] = number
    unpacker = Unpacker()
    arrived = unpacker.unpack(sent(Packer(log).pack(records, AT)))
    assert unpacker.log.encoder().flows(arrived) == log.encoder().flows(records)


def test_what_was_told_is_not_told_again_unless_it_has_changed() -> None:
    log = some_log()
    packer, unpacker = Packer(log), Unpacker()
    first = made.records(made.event(), names=log.names)
    second = made.records(made.event(), names=log.names)
    unpacker.unpack(sent(packer.pack(first, AT)))
    again = packer.pack(second, AT)
    assert (again.layout, again.ends) == (None, {})
    # Row of a pod that is gone: another gets its number.
    row = int(first["source_row"][0])
    log.names.forget("client")
    assert log.names.collect([]) > 0
    log.names.put("other", [address_bytes("10.0.0.1")], End(("k8s:app=other",), "shop", "other-1"))
    third = made.records(made.event(), names=log.names)
    assert int(third["source_row"][0]) == row
    before = unpacker.unpack(sent(again))
    after = unpacker.unpack(sent(packer.pack(third, AT)))
    pods = [unpacker.log.names[int(each["source_row"][0])].pod for each in (before, after)]
    assert pods == ["client-1", "other-1"]


def test_filters_work_on_what_has_arrived() -> None:
    log = some_log()
    records = made.records(made.event(), made.event(source="192.0.2.1"), names=log.names)
    unpacker = Unpacker()
    arrived = unpacker.unpack(sent(Packer(log).pack(records, AT)))
    mask = unpacker.log.matcher([FlowFilter(from_pod=("shop/client",))]).mask(arrived)
    assert mask.tolist() == [True, False]


def test_the_middle_of_a_stream_cannot_be_read() -> None:
    log = some_log()
    packer = Packer(log)
    packer.pack(made.records(made.event()), AT)
    with pytest.raises(ValueError, match="beginning"):
        Unpacker().unpack(packer.pack(made.records(made.event()), AT))


def test_half_a_record_is_none() -> None:
    parcel = Packer(some_log()).pack(made.records(made.event()), AT)
    torn = msgspec.structs.replace(parcel, records=parcel.records[:-1])
    with pytest.raises(ValueError, match="whole number"):
        Unpacker().unpack(torn)


def test_rows_of_any_size_have_a_place() -> None:
    log = some_log()
    for number in range(2000):
        address = address_bytes(f"10.9.{number // 250}.{number % 250}")
        log.names.put(str(number), [address], End(pod=f"pod-{number}"))
    records = made.records(made.event(source="10.9.7.249"), names=log.names)
    unpacker = Unpacker()
    arrived = unpacker.unpack(sent(Packer(log).pack(records, AT)))
    assert unpacker.log.names[int(arrived["source_row"][0])].pod == "pod-1999"
    assert len(unpacker.log.names) < 10
    assert np.array_equal(arrived["destination"], records["destination"])

"""What gets into a capture, and what stands beside it: made-up frames and flows."""

from __future__ import annotations

import io
import struct
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.capture import packets
from axoneme.capture.recorder import HOLD, Limits, Recorder, comment
from axoneme.capture.taps import Seen
from axoneme.flows.flow import (
    ICMP,
    IP,
    TCP,
    Endpoint,
    Flow,
    Layer4,
    PolicyName,
    Ports,
    Service,
)
from oracle import pcapng

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
CLIENT, SERVER, FRONTEND, NODE = "10.0.0.1", "10.0.0.2", "10.96.0.1", "172.31.0.1"


def ipv4(
    source: str, destination: str, protocol: int, data: bytes, number: int = 1, fragment: int = 0
) -> bytes:
    size = 20 + len(data)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, number, fragment, 64, protocol, 0)
    return head + ip_address(source).packed + ip_address(destination).packed + data


def tcp(sport: int, dport: int, flags: int = 0x10, sequence: int = 1, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, sequence, 0, 0x50, flags, 1024, 0, 0) + data


def frame(packet: bytes, tag: bytes = b"") -> bytes:
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return bytes(12) + tag + kind + packet


def seen(data: bytes, at: int = 0, device: str = "eth0", outgoing: bool = False) -> Seen:
    return Seen(NOW + at, device, True, outgoing, data, len(data))


def call(
    sport: int = 40000, source: str = CLIENT, to: str = SERVER, dport: int = 80, sequence: int = 1
) -> bytes:
    return frame(ipv4(source, to, 6, tcp(sport, dport, sequence=sequence)))


def flow(event: str = "new", sport: int = 40000, **more: object) -> Flow:
    made = Flow(
        time="",
        verdict="DROPPED" if event == "drop" else "FORWARDED",
        event=event,
        IP=IP(CLIENT, SERVER, "IPv4"),
        l4=Layer4(TCP=TCP(sport, 80)),
        source=Endpoint(namespace="shop", pod_name="client", labels=("k8s:app=client",)),
        destination=Endpoint(namespace="shop", pod_name="web", labels=("k8s:app=web",)),
        node_name="node1",
    )
    return msgspec.structs.replace(made, **more)


class Made:
    """A recording in memory."""

    def __init__(self, every_device: bool = False, **limits: int) -> None:
        self.file = io.BytesIO()
        self.recorder = Recorder(
            self.file,
            Limits(**limits),
            "axo capture",
            lambda node, device: f"{device} of {node}",
            every_device,
        )

    def hear(self, found: Flow, at: int = 0) -> None:
        self.recorder.hear("node1", found, NOW + at)

    def see(self, *found: Seen, node: str = "node1") -> None:
        self.recorder.see(node, found)

    def read(self) -> pcapng.Capture:
        self.recorder.finish(NOW + 60 * SECOND)
        return pcapng.read(self.file.getvalue())

    def payloads(self) -> list[bytes]:
        return [each["data"] for each in self.read().packets]


def test_a_packet_of_a_chosen_connection_is_written_with_what_is_known() -> None:
    made = Made()
    made.see(seen(call()), seen(call(sport=40001)))
    made.hear(flow(ingress_allowed_by=(PolicyName("web", "shop", "NetworkPolicy"),)))
    found = made.read()
    (packet,) = found.packets
    assert packet["data"] == call()
    assert packet["time"] == NOW
    assert packet["interface"] == {
        "link": 1,
        "snap": 262144,
        "name": "node1:eth0",
        "description": "eth0 of node1",
    }
    assert packet["verdict"] == (1, 0)
    assert packet["comments"] == [
        "FORWARDED seen by node1\n"
        "shop/client:40000 -> shop/web:80\n"
        "ingress allowed by NetworkPolicy shop/web\n"
        "source: k8s:app=client\n"
        "destination: k8s:app=web"
    ]
    assert found.names == {
        ip_address(CLIENT).packed: "client.shop",
        ip_address(SERVER).packed: "web.shop",
    }
    assert [(each["received"], each["delivered"]) for each in found.statistics] == [(2, 1)]
    assert found.options[1] == [b"axo capture"]


def test_both_directions_belong_to_it() -> None:
    made = Made()
    answer = frame(ipv4(SERVER, CLIENT, 6, tcp(80, 40000)))
    made.see(seen(call()), seen(answer, 10, "pod"))
    made.hear(flow())
    assert made.payloads() == [call(), answer]


def test_packets_leave_in_order_of_time_whatever_node_they_are_of() -> None:
    made = Made()
    made.hear(flow())
    made.recorder.hear("node2", flow(), NOW)
    made.see(seen(call(sequence=3), 300), seen(call(sequence=1), 100))
    made.see(seen(call(sequence=2), 200), node="node2")
    assert [each["time"] - NOW for each in made.read().packets] == [100, 200, 300]


def test_a_packet_waits_for_its_flow_and_no_longer() -> None:
    made = Made()
    made.see(seen(call()), seen(call(sequence=2), 2 * SECOND))
    made.recorder.settle(NOW + HOLD - 1)
    made.hear(flow())
    made.recorder.settle(NOW + HOLD)
    assert made.recorder.written == 1
    made.recorder.settle(NOW + 2 * SECOND + HOLD)
    assert made.recorder.written == 2


def test_of_a_tuple_that_is_used_again_each_packet_has_its_own_connection() -> None:
    made = Made()
    made.hear(flow(), 0)
    made.hear(flow("end"), SECOND)
    made.hear(flow(verdict="REDIRECTED", proxy_port=11000), 10 * SECOND)
    made.see(*(seen(call(sequence=n), n * SECOND) for n in (0, 1, 5, 10, 11)))
    assert [(each["time"] - NOW) // SECOND for each in made.read().packets] == [0, 1, 10, 11]
    assert [each["comments"][0].split()[0] for each in made.read().packets[:4]] == [
        "FORWARDED",
        "FORWARDED",
        "REDIRECTED",
        "REDIRECTED",
    ]


def test_the_end_alone_tells_since_when_it_was() -> None:
    made = Made()
    made.see(seen(call(), 0), seen(call(sequence=2), 5 * SECOND))
    made.hear(flow("end", duration_ns=2 * SECOND), 6 * SECOND)
    assert [each["time"] - NOW for each in made.read().packets] == [5 * SECOND]


def test_a_drop_is_that_packet_and_no_other() -> None:
    made = Made()
    made.see(
        seen(call(sequence=1)),
        seen(call(sequence=2), SECOND),
        seen(frame(ipv4(SERVER, CLIENT, 6, tcp(80, 40000))), SECOND),
    )
    made.hear(flow("drop", drop_reason_desc="POLICY_DENIED"), SECOND + 30_000)
    (packet,) = made.read().packets
    assert packet["data"] == call(sequence=2)
    assert packet["verdict"] == (1, 2)
    assert packet["comments"][0].startswith("DROPPED POLICY_DENIED seen by node1\n")


def test_a_dropped_packet_of_a_connection_says_so() -> None:
    made = Made()
    made.hear(flow())
    made.see(seen(call(sequence=1)), seen(call(sequence=2), SECOND))
    made.hear(flow("drop"), SECOND)
    assert [each["verdict"] for each in made.read().packets] == [(1, 0), (1, 2)]


def test_what_came_in_is_not_written_again_where_it_goes_out() -> None:
    again = frame(ipv4(CLIENT, SERVER, 6, tcp(40000, 80)))
    hop = bytearray(again)
    hop[22] -= 1  # the hop limit; and the checksum, which nothing here looks at
    for every_device, count in ((False, 1), (True, 2)):
        made = Made(every_device)
        made.hear(flow())
        made.see(seen(again, 0, "pod"), seen(bytes(hop), 500, "eth0", outgoing=True))
        assert len(made.payloads()) == count


def test_what_the_node_itself_sends_is_written_where_it_goes_out() -> None:
    made = Made()
    made.hear(flow())
    made.see(seen(call(), outgoing=True))
    (packet,) = made.read().packets
    assert packet["flags"] == 2


def test_packets_to_a_service_and_as_masqueraded_belong_to_the_connection() -> None:
    made = Made(every_device=True)
    served = IP(CLIENT, SERVER, "IPv4", NODE, 1024, 0, FRONTEND, 8080)
    made.hear(flow(IP=served, destination_service=Service("web", "shop")))
    to_service = call(to=FRONTEND, dport=8080)
    outside = call(sport=1024, source=NODE)
    made.see(seen(to_service), seen(outside, 1, "eth0", outgoing=True))
    assert made.payloads() == [to_service, outside]
    assert made.read().names[ip_address(FRONTEND).packed] == "web.shop.svc"


def test_pieces_of_a_datagram_follow_the_first() -> None:
    made = Made()
    first = frame(ipv4(CLIENT, SERVER, 17, struct.pack("!HHHH", 53, 53, 2000, 0) + bytes(1000), 7, 0x2000))
    second = frame(ipv4(CLIENT, SERVER, 17, bytes(992), 7, 126))
    stranger = frame(ipv4(CLIENT, SERVER, 17, bytes(992), 8, 126))
    made.hear(flow(l4=Layer4(UDP=Ports(53, 53))))
    made.see(seen(first), seen(second, 1), seen(stranger, 2))
    assert made.payloads() == [first, second]


def test_an_error_belongs_to_the_connection_that_it_is_about() -> None:
    made = Made()
    about = ipv4(CLIENT, SERVER, 6, tcp(40000, 80))
    error = frame(ipv4("192.0.2.1", CLIENT, 1, struct.pack("!BBHI", 3, 4, 0, 1400) + about[:28]))
    made.hear(flow())
    made.see(seen(error))
    assert made.payloads() == [error]


def test_echoes_are_those_between_two_addresses() -> None:
    made = Made()
    echo = frame(ipv4(CLIENT, SERVER, 1, struct.pack("!BBHHH", 8, 0, 0, 77, 1)))
    made.hear(flow(l4=Layer4(ICMPv4=ICMP(8, 0))))
    made.see(seen(echo))
    assert made.payloads() == [echo]


def test_tags_extensions_and_ipv6_are_read() -> None:
    source, destination = "fd00::1", "fd00::2"
    inner = tcp(40000, 80)
    options = struct.pack("!BB6x", 6, 0)
    packet = (
        struct.pack("!IHBB", 6 << 28, len(options) + len(inner), 0, 64)
        + ip_address(source).packed
        + ip_address(destination).packed
        + options
        + inner
    )
    tagged = frame(packet, struct.pack("!HH", 0x8100, 5))
    made = Made()
    made.hear(flow(IP=IP(source, destination, "IPv6")))
    made.see(seen(tagged))
    assert made.payloads() == [tagged]


def test_packets_are_cut_and_say_how_long_they_were() -> None:
    made = Made(snap_length=64)
    long = frame(ipv4(CLIENT, SERVER, 6, tcp(40000, 80, data=bytes(500))))
    made.hear(flow())
    made.see(seen(long))
    (packet,) = made.read().packets
    assert (packet["data"], packet["length"]) == (long[:64], len(long))


@pytest.mark.parametrize(("limits", "why"), [({"packets": 2}, "2 packets"), ({"size": 1500}, "1500 bytes")])
def test_a_full_file_is_whole(limits: dict[str, int], why: str) -> None:
    made = Made(**limits)
    made.hear(flow())
    made.see(*(seen(call(sequence=n), n) for n in range(20)))
    found = made.read()
    assert 0 < len(found.packets) < 20
    assert why in made.recorder.full
    assert found.statistics, "also then"


def test_labels_and_policies_may_have_any_characters() -> None:
    odd = flow(source=Endpoint(namespace="ü", pod_name="<b>", labels=("k8s:a=\0",)))
    made = Made()
    made.hear(odd)
    made.see(seen(call()))
    (packet,) = made.read().packets
    assert packet["comments"] == [comment(odd)]


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(raw: bytes) -> None:
    for read in (packets.of_frame, packets.of_ip):
        found = read(raw)
        assert found is None or found.protocol < 256


@given(st.integers(0, 159))
def test_a_packet_that_is_cut_short_is_nobodys_or_the_same_ones(size: int) -> None:
    whole = ipv4(CLIENT, SERVER, 6, tcp(40000, 80, data=bytes(120)))
    found, right = packets.of_ip(whole[:size]), packets.of_ip(whole)
    assert right is not None
    assert found is None or found.key == right.key

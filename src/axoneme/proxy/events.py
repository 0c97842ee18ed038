"""What a proxy has seen, on its way to the flow server.

A request must never wait for somebody who watches: what cannot be sent at once is lost, and the next report
that gets through says how many there were. The flow server may come and go.

The socket is SOCK_SEQPACKET: messages as with datagrams, but a receiver of datagrams has room for ten of them
(``net.unix.max_dgram_qlen``), while here the sender's own buffer, hundreds of events, is the limit; and the
receiver's end is noticed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from axoneme.model.l7event import LONGEST, MOST, DNSEvent, HTTPEvent, KafkaEvent, L7Event, L7Report
from axoneme.model.redaction import Redaction
from axoneme.rpc.address import short_name

#: Asked for; the kernel gives twice ``net.core.wmem_max`` at most.
_BUFFER: Final = 1 << 20
#: Between two attempts to reach the flow server, in seconds.
_PAUSE: Final = 0.1


class EventSender:
    """For one thread. Nothing here blocks, and nothing raises for want of a receiver.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(
        self, path: Path, redaction: Redaction, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        #: May be replaced when another plan says so.
        self.redaction = redaction
        self._clock = clock
        self._encoder = msgspec.json.Encoder()
        self._socket: socket.socket | None = None
        self._again = float("-inf")
        self._untold = 0
        #: Events that did not get to the flow server, since the start.
        self.lost = 0

    def send(self, *events: L7Event) -> None:
        """Sends them, without what must not be seen; several at once cost less than one after the other."""
        for start in range(0, len(events), MOST):
            some = events[start : start + MOST]
            if not self._deliver(tuple(map(self._shown, some))):
                self._untold += len(some)
                self.lost += len(some)

    def leave_out(self, count: int) -> None:
        """So many events are not worth what it costs to tell of them: they count as lost."""
        self._untold += count
        self.lost += count
        self._deliver(())

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _deliver(self, events: tuple[L7Event, ...]) -> bool:
        if self._socket is None and not self._connect():
            return False
        assert self._socket is not None
        try:
            message = self._encoder.encode(L7Report(events, self._untold))
            self._socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except (BlockingIOError, UnicodeEncodeError):  # the latter: half a pair of surrogates
            return False
        except OSError:
            # The flow server has ended; or this message is longer than any may be, which costs a connection.
            self.close()
            return False
        self._untold = 0
        return True

    def _connect(self) -> bool:
        now = self._clock()
        if now < self._again:
            return False
        self._again = now + _PAUSE
        made = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            with short_name(self._path) as name:
                made.connect(name)
        except OSError:
            made.close()
            return False
        self._socket = made
        return True

    def _shown(self, event: L7Event) -> L7Event:
        http, dns, kafka = event.http, event.dns, event.kafka
        return replace(
            event,
            reason=event.reason[:LONGEST],
            server_name=event.server_name[:LONGEST],
            http=_cut_http(self.redaction.http(http)) if http else None,
            dns=_cut_dns(dns) if dns else None,
            kafka=_cut_kafka(kafka) if kafka else None,
        )


def _cut_http(event: HTTPEvent) -> HTTPEvent:
    return replace(
        event,
        method=event.method[:LONGEST],
        url=event.url[:LONGEST],
        headers=tuple((name[:LONGEST], value[:LONGEST]) for name, value in event.headers[:MOST]),
    )


def _cut_dns(event: DNSEvent) -> DNSEvent:
    return replace(
        event,
        query=event.query[:LONGEST],
        ips=event.ips[:MOST],
        cnames=tuple(name[:LONGEST] for name in event.cnames[:MOST]),
        rrtypes=event.rrtypes[:MOST],
    )


def _cut_kafka(event: KafkaEvent) -> KafkaEvent:
    return replace(event, topic=event.topic[:LONGEST], client_id=event.client_id[:LONGEST])

"""Names of addresses, from the answers that DNS proxies of this node have seen: for the context ``dns``."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from axoneme.identity.prefixes import address_bytes
from axoneme.model.l7event import L7Event

#: Addresses; of more, the one that was told of longest ago is forgotten.
_MOST: Final = 8192
#: Names of one address; of more, the oldest goes.
_NAMES: Final = 4


class DnsNames:
    def __init__(self) -> None:
        self._names: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def learn(self, event: L7Event) -> None:
        """What an answer says; others say nothing."""
        if event.dns is None or event.type != "RESPONSE":
            return
        name = event.dns.query.rstrip(".")
        for text in event.dns.ips:
            try:
                address = address_bytes(text)
            except ValueError:
                continue
            known = [each for each in self._names.pop(address, ()) if each != name]
            self._names[address] = (*known[-_NAMES + 1 :], name)
        while len(self._names) > _MOST:
            self._names.popitem(last=False)

    def of(self, address: bytes) -> str:
        """With commas between them, as Hubble writes them; empty where nobody asked."""
        return ",".join(sorted(self._names.get(address, ())))

"""Addresses of gRPC services, as Hubble's programs write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

_FORM = re.compile(r"(?:(?P<scheme>[a-z+]+)://)?(?P<host>\[[0-9a-fA-F:.%]+\]|[^:\[\]]*):(?P<port>\d{1,5})")


class AddressError(ValueError):
    """Text that is no address; says what would be one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket's ``path``, or ``host`` ("" for all of the machine's addresses) and ``port``; ``tls``
    where the text asked for it."""

    host: str = ""
    port: int = 0
    path: Path | None = None
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """``unix:///run/axoneme/hubble.sock``, ``HOST:PORT``, ``:PORT``, ``tls://HOST:PORT``."""
        if text.startswith("unix:"):
            path = Path(re.sub(r"^unix:(//)?", "", text))
            if path.name:
                return cls(path=path)
        elif (form := _FORM.fullmatch(text)) and form["scheme"] in (None, "tcp", "dns", "tls"):
            port = int(form["port"])
            if 0 <= port < 65536:
                return cls(form["host"].strip("[]"), port, tls=form["scheme"] == "tls")
        raise AddressError(f"{text!r} is no address: give unix:///PATH, HOST:PORT, :PORT or tls://HOST:PORT")

    @property
    def local(self) -> bool:
        """Whether what is sent there cannot leave the machine."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.tls else ''}{host}:{self.port}"

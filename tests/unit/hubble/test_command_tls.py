"""The hubble command against mutual TLS: with the right certificates, others, and ended ones."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from axoneme.certificates.authority import Authority
from axoneme.certificates.files import Files
from axoneme.hubble.address import Address
from gotools import tool
from unit.hubble.test_serving import Flows, issued, serving

NAME = "n1.default.hubble-grpc.cilium.io"


async def status(address: Address, files: Files, home: Path, name: str = NAME) -> tuple[int, str]:
    command = [
        *("status", "--server", f"tls://127.0.0.1:{address.port}", "--tls-server-name", name),
        *("--tls-ca-cert-files", files.authority, "--timeout", "5s", "--request-timeout", "5s"),
        *("--tls-client-cert-file", files.certificate, "--tls-client-key-file", files.key),
    ]
    done = await asyncio.create_subprocess_exec(
        tool("hubble"),
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )
    text, _ = await done.communicate()
    return done.returncode or 0, text.decode()


def authority(folder: Path, now: float | None = None) -> Authority:
    made = Authority(folder, (lambda: now) if now else time.time)
    made.init("default")
    return made


async def test_with_the_right_certificates_and_with_others(tmp_path: Path) -> None:
    ours = authority(tmp_path / "ca")
    files = issued(ours, tmp_path / "node")
    others = issued(authority(tmp_path / "other-ca"), tmp_path / "other")
    mixed = Files(others.certificate, others.key, files.authority)
    async with serving(Flows().server(), Address("127.0.0.1", 0, tls=True), files) as address:
        code, text = await status(address, files, tmp_path)
        assert code == 0, text
        assert ": Ok" in text
        code, text = await status(address, files, tmp_path, "n2.default.hubble-grpc.cilium.io")
        assert code != 0
        assert "not n2.default" in text
        code, text = await status(address, mixed, tmp_path)
        assert code != 0
        code, text = await status(address, others, tmp_path)
        assert code != 0
        assert "unknown authority" in text


async def test_an_ended_certificate_is_named_and_its_successor_taken_without_a_restart(
    tmp_path: Path,
) -> None:
    past = authority(tmp_path / "ca", time.time() - 10 * 86400)
    files = issued(past, tmp_path / "node")  # for a day, from ten days ago on
    async with serving(Flows().server(), Address("127.0.0.1", 0, tls=True), files) as address:
        code, text = await status(address, files, tmp_path)
        assert code != 0
        assert "expired" in text
        issued(Authority(tmp_path / "ca"), tmp_path / "node")
        async with asyncio.timeout(30):
            while (await status(address, files, tmp_path))[0]:
                await asyncio.sleep(0.05)

"""Metrics over real sockets, plain and by TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from axoneme.metrics.families import Family, Gauge
from axoneme.metrics.serving import Exposition, Listening
from axoneme.rpc import listening
from axoneme.rpc.listening import TlsFiles


def certify(folder: Path, name: str) -> TlsFiles:
    """A certificate for 127.0.0.1 that signs itself; whoever trusts it may show it as a client too."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(folder / "node.crt", folder / "node.key")
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    files.certificate.write_bytes(made.public_bytes(pem))
    return files


def told() -> list[Family]:
    made = Gauge("up", "")
    made.set(1)
    return [made]


async def gone() -> list[Family]:
    raise ConnectionRefusedError


@contextlib.asynccontextmanager
async def serving(files: TlsFiles | None) -> AsyncIterator[int]:
    """Its port."""
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    where = Listening("127.0.0.1", 0, files)
    task = asyncio.create_task(Exposition([told], [gone]).serve(where, port.set_result))
    try:
        yield await asyncio.wait_for(port, 10)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_whoever_asks_gets_the_format_that_he_reads() -> None:
    async with serving(None) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        plain = await client.get("/metrics", headers={"accept-encoding": "identity"})
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert plain.text.endswith("up 1\n") and "content-encoding" not in plain.headers
        other = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert other.headers["content-encoding"] == "gzip" and other.text.endswith("up 1\n# EOF\n")
        assert (await client.get("/")).status_code == 404


def test_nothing_is_served_to_other_machines_without_tls(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "node.crt", tmp_path / "node.key")
    assert Listening.of("127.0.0.1:9962", "metrics.listen", None).files is None
    assert Listening.of("[::1]:9962", "metrics.listen", files).files is None
    assert Listening.of(":9962", "metrics.listen", files) == Listening("", 9962, files)
    for text in (":9962", "10.0.0.1:9962", "[::]:9962"):
        with pytest.raises(ValueError, match=r"^metrics\.listen: .* there are no certificates for it"):
            Listening.of(text, "metrics.listen", None)


async def test_certificates_are_read_anew_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_LOOK_EVERY", 0.02)
    files = certify(tmp_path, "first")

    async def name(port: int) -> str:
        context = ssl.create_default_context(cafile=str(files.certificate))
        context.check_hostname = False
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        certificate = writer.get_extra_info("peercert")
        writer.close()
        return str(certificate["subject"][0][0][1])

    async with serving(files) as port:
        assert await name(port) == "first"
        with pytest.raises(httpx.HTTPError):  # no plain text there
            await httpx.AsyncClient().get(f"http://127.0.0.1:{port}/metrics")
        files.key.write_text("nothing yet")  # a renewal is under way
        await asyncio.sleep(0.1)
        certify(tmp_path, "second")
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(ssl.SSLError):  # the file is newer than what is served
                    if await name(port) == "second":
                        return


async def test_who_has_no_certificate_is_refused_where_one_is_wanted(tmp_path: Path) -> None:
    own = certify(tmp_path, "node")
    async with serving(TlsFiles(own.certificate, own.key, own.certificate)) as port:
        trusting = ssl.create_default_context(cafile=str(own.certificate))
        trusting.check_hostname = False
        async with httpx.AsyncClient(verify=trusting) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"https://127.0.0.1:{port}/metrics")
        trusting.load_cert_chain(own.certificate, own.key)
        async with httpx.AsyncClient(verify=trusting) as client:
            assert (await client.get(f"https://127.0.0.1:{port}/metrics")).text.endswith("up 1\n")

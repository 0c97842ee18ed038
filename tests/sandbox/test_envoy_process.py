"""The proxy for HTTP as processes: who they are, and what becomes of them when one is killed."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from envoys import Proxy, ended, proxy, serve_http

from axoneme.model.l7 import L7, HTTPRule, L7Kind
from axoneme.proxy.envoy.http import HEADERS

SERVER, LISTENER = 8080, 10000
PUBLIC = L7(L7Kind.HTTP, http=(HTTPRule(method="GET", path="/public/.*"),))


@pytest.fixture
def through(tmp_path: Path) -> Iterator[Proxy]:
    with proxy(tmp_path, {SERVER: LISTENER}) as made, ExitStack() as stack:
        serve_http(made, SERVER, stack)
        made.serve(LISTENER, PUBLIC)
        yield made


def until_ended(pid: int) -> None:
    end = time.monotonic() + 20
    while not ended(pid):
        assert time.monotonic() < end, f"{pid} lives on"
        time.sleep(0.005)


def test_an_envoy_that_is_killed_comes_back_with_its_rules(through: Proxy) -> None:
    before = through.envoy()
    os.kill(before, signal.SIGKILL)
    through.report(lambda report: report.ready == () and report.revision == through.revision)
    through.report(lambda report: report.ready == (LISTENER,))
    assert through.envoy() != before
    connection = through.connect(SERVER)
    assert (connection.status("/public/x"), connection.status("/private")) == (200, 403)


def test_an_envoy_goes_with_its_parent_whatever_happens(through: Proxy) -> None:
    assert through.process is not None
    envoy = through.envoy()
    through.process.kill()
    through.process.wait()
    until_ended(envoy)
    # The plan is all that the next one needs.
    through.start()
    through.report(lambda report: report.ready == (LISTENER,) and report.pid == through.process.pid)
    connection = through.connect(SERVER)
    assert (connection.status("/public/x"), connection.status("/private")) == (200, 403)


@pytest.mark.parametrize("how", ["told", "without a plan"])
def test_both_end_in_order(through: Proxy, how: str) -> None:
    envoy = through.envoy()
    assert through.process is not None
    if how == "told":
        through.process.send_signal(signal.SIGTERM)
        assert through.process.wait(20) == 0
    else:
        assert through.take_away() == 0
    assert ended(envoy)


def test_envoy_may_only_what_a_proxy_needs(through: Proxy) -> None:
    status = Path(f"/proc/{through.envoy()}/status").read_text()
    uid = pwd.getpwnam("nobody").pw_uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert f"{kind}:\t{1 << 13:016x}" in status
    assert "NoNewPrivs:\t1" in status
    # Its socket for administration takes orders from its own user alone.
    admin = (through.folder / "admin.sock").stat()
    assert stat.S_ISSOCK(admin.st_mode)
    assert stat.S_IMODE(admin.st_mode) == 0o600
    assert stat.S_IMODE(through.folder.stat().st_mode) == 0o700
    listening = through.rig.run(through.rig.proxy, "ss -Hltn").split("\n")
    assert {line.split()[3] for line in listening if line} == {f"127.0.0.1:{LISTENER}", f"[::1]:{LISTENER}"}


@pytest.mark.slow
def test_who_never_finishes_a_request_is_cut_off(through: Proxy) -> None:
    slow = through.call(SERVER)
    slow.sendall(b"GET /public/x HTTP/1.1\r\n")
    slow.settimeout(2 * HEADERS)
    said = b""
    while part := slow.recv(4096):
        said += part
    assert said.startswith(b"HTTP/1.1 408")
    # Others are served meanwhile, and after it.
    assert through.connect(SERVER).status("/public/x") == 200

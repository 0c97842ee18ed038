"""Running a command in a pod, from whichever process asks: `axo exec`, tests, the demonstration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from axoneme.rpc import Client, RpcError
from axoneme.sandbox import launch
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import Layout, check_name
from axoneme.sandbox.report import ExecTarget, PodName


def target(sandbox: str, namespace: str, pod: str, container: str = "") -> ExecTarget:
    """Where a command for the pod must run; raises SandboxError."""
    layout = Layout(check_name(sandbox))
    wish = PodName(namespace=namespace, pod=pod, container=container)
    try:
        return Client(layout.supervisor_socket).call("pod.exec", wish, ExecTarget)
    except RpcError as failure:
        raise SandboxError(failure.message) from failure


def pod_namespace(sandbox: str, namespace: str, pod: str) -> Path:
    """The file of the pod's network namespace, for probes from it."""
    return Path(target(sandbox, namespace, pod).netns)


def exec_in_pod(
    sandbox: str,
    namespace: str,
    pod: str,
    argv: Sequence[str],
    tty: bool = False,
    *,
    stdin: bool = False,
    container: str = "",
) -> int:
    """Runs `argv` in the pod with this process's standard output, and returns its exit code.

    It runs beside the container's process, in its namespaces; in a pod that the echo server plays it gets
    the pod's network, name and hosts file in namespaces of its own. With `tty` it shares this process's
    terminal, keys that interrupt included; with `stdin` it reads this process's input. Otherwise it reads
    nothing, so that it does not eat a script's input.
    """
    place = target(sandbox, namespace, pod, container)
    terminal = {"TERM": os.environ.get("TERM", "xterm")} if tty else {}
    process = subprocess.Popen(
        launch.command_line("run", _enclosure(place), -1, argv),
        stdin=None if tty or stdin else subprocess.DEVNULL,
        env={**place.environment, **terminal},
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the command has heard it too, and decides


def output_of(sandbox: str, namespace: str, pod: str, argv: Sequence[str]) -> str:
    """What `argv` writes when it runs in the pod, beside its first container."""
    place = target(sandbox, namespace, pod)
    done = subprocess.run(
        launch.command_line("run", _enclosure(place), -1, argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=dict(place.environment),
        text=True,
        check=False,
    )
    return done.stdout


def _enclosure(place: ExecTarget) -> launch.Enclosure:
    return launch.Enclosure(
        netns=place.netns,
        group=place.group,
        hostname=place.hostname,
        hidden=place.hidden,
        files=place.files,
        join=place.join,
        directory=place.directory,
    )

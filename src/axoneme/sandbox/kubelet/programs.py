"""What a container is on this machine: a process, or the echo server in place of its image.

Images are never pulled. A container whose command exists here runs it; any other is played by the echo
server, so that an application's manifests come up as a skeleton of its network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from axoneme.sandbox.objects import Container, Pod

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_REFERENCE: Final = re.compile(r"\$(\$|\(([A-Za-z_][-A-Za-z0-9_.]*)\))")


@dataclass(frozen=True, slots=True)
class Program:
    """A process to run."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the fields of a pod that only its node knows are, for the environment."""

    node: str
    host_ip: str
    pod_ips: Sequence[str]


def is_program(container: Container, exists: Callable[[str], bool]) -> bool:
    """Whether the container's command is there; `exists` asks for a program by name or path."""
    words = container.command or container.args
    return bool(words) and exists(words[0])


def program(pod: Pod, container: Container, facts: Facts) -> Program:
    """What to run for a container whose command exists."""
    environment = {"PATH": DEFAULT_PATH, "HOME": "/root", "HOSTNAME": hostname(pod)}
    for variable in container.env:
        if variable.value_from and variable.value_from.field_ref:
            value = _field(pod, facts, variable.value_from.field_ref.field_path)
        else:
            value = expand(variable.value, environment)
        environment[variable.name] = value
    words = (*container.command, *container.args)
    argv = tuple(expand(word, environment) for word in words)
    return Program(argv, environment, container.working_dir or "/")


def hostname(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:63]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces ``$(NAME)`` by the variable, as the Kubernetes API describes it: unknown names stay as
    they are, and ``$$`` stands for one dollar sign."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def _field(pod: Pod, facts: Facts, path: str) -> str:
    """A field of the downward API; empty for one that is not known here."""
    label = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if label:
        source = pod.metadata.labels if label[1] == "labels" else pod.metadata.annotations
        return source.get(label[2], "")
    known = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": facts.host_ip,
        "status.podIP": facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": ",".join(facts.pod_ips),
    }
    return known.get(path, "")

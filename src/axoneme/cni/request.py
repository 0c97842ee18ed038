"""What a runtime asks: the CNI_ variables and the network configuration, checked.

Errors carry the specification's codes, and a text that names what is wrong and what would be right.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]

_CONTAINER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


class Code(enum.IntEnum):
    """Error codes of the specification, section "Error"; from 100 on they are ours."""

    INCOMPATIBLE_VERSION = 1
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    NO_ADDRESSES = 51
    FAILED = 100
    NOT_AS_IT_SHOULD_BE = 101


class CniError(Exception):
    """A request that cannot be met."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(f"{message}; {details}" if details else message)
        self.code = code
        self.message = message
        self.details = details


class Label(msgspec.Struct, frozen=True):
    key: str
    value: str = ""


class _CniArgs(msgspec.Struct, frozen=True):
    labels: list[Label] = []


class _Args(msgspec.Struct, frozen=True):
    cni: _CniArgs = _CniArgs()


class Attachment(msgspec.Struct, frozen=True):
    """One of those that GC shall leave."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str = msgspec.field(name="ifname")


class Config(msgspec.Struct, frozen=True):
    """A network configuration. Fields of the specification that we do not use are passed over.

    ``labels`` and ``namespace`` are ours: whom the containers of this network are for policies.
    """

    name: str = ""
    cni_version: str = msgspec.field(default="0.3.0", name="cniVersion")
    labels: dict[str, str] = {}
    namespace: str = "default"
    args: _Args = _Args()
    prev_result: object = msgspec.field(default=None, name="prevResult")
    valid_attachments: list[Attachment] | None = msgspec.field(default=None, name="cni.dev/valid-attachments")


@dataclass(frozen=True, slots=True)
class Request:
    """``args`` are the pairs of CNI_ARGS; ``netns`` is empty where a DEL comes too late for one."""

    command: str
    config: Config
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: Mapping[str, str] = field(default_factory=dict)

    @property
    def pod(self) -> tuple[str, str]:
        """Namespace and name of the pod; a container without is called by the beginning of its id."""
        return (
            self.args.get("K8S_POD_NAMESPACE") or self.config.namespace,
            self.args.get("K8S_POD_NAME") or self.container_id[:12].lower(),
        )

    @property
    def labels(self) -> dict[str, str] | None:
        """The network's, then those of ``args.cni.labels``, then those of AXO_LABELS; None where a pod's
        object has them."""
        if self.args.get("K8S_POD_NAME") and not self.config.labels:
            return None
        own = (pair.partition("=") for pair in self.args.get("AXO_LABELS", "").split(",") if pair)
        return {
            **self.config.labels,
            **{label.key: label.value for label in self.config.args.cni.labels},
            **{key: value for key, _, value in own},
        }


#: Which variables a command needs.
_NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "STATUS": (),
    "GC": (),
}


def parse(environment: Mapping[str, str], text: bytes) -> Request:
    """Raises `CniError`."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _NEEDS:
        known = f"one of {', '.join((*_NEEDS, 'VERSION'))} belongs there"
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND is {command!r}", known)
    for name in _NEEDS[command]:
        if not environment.get(name):
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is missing", f"{command} needs it")
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if container_id and not _CONTAINER_ID.fullmatch(container_id):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID is {container_id!r}",
            "letters, digits, '_', '.' and '-' are allowed, a letter or digit first",
        )
    if ifname and (len(ifname) > 15 or ifname in {".", ".."} or re.search(r"[/:\s]", ifname)):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_IFNAME is {ifname!r}",
            "up to 15 letters without '/', ':' and space name an interface",
        )
    return Request(
        command,
        _config(text),
        container_id,
        environment.get("CNI_NETNS", ""),
        ifname,
        _pairs(environment.get("CNI_ARGS", "")),
    )


def _config(text: bytes) -> Config:
    try:
        config = msgspec.json.decode(text, type=Config)
    except msgspec.ValidationError as error:
        raise CniError(Code.INVALID_CONFIG, f"network configuration: {error}") from error
    except msgspec.DecodeError as error:
        raise CniError(Code.UNDECODABLE, f"the network configuration is no JSON: {error}") from error
    if config.cni_version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion is {config.cni_version!r}",
            f"supported are {', '.join(VERSIONS)}",
        )
    if not config.name:
        raise CniError(Code.INVALID_CONFIG, "the network configuration has no name")
    return config


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if part and not equals:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_ARGS: {part!r} is no pair",
                "expected KEY=VALUE;KEY=VALUE",
            )
        if part:
            pairs[key] = value
    return pairs

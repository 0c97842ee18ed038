"""What a runtime asks: the CNI_ variables and the network configuration, checked.

Errors carry the specification's codes, and a text that names what is wrong and what would be right.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from axoneme.model.checks import is_label_key, is_label_value

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = VERSIONS[-1]

#: The capability by which CRI runtimes hand over a pod's annotations, and the one that has labels.
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
ANNOTATION = "axoneme.io/labels"
_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")

#: Networks, containers and pods are called so.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9_.@+\-]{0,14}")


class Code(enum.IntEnum):
    """Error codes of the specification, sections "Error" and "STATUS"; from 100 on they are ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIG = 7
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51  # not available, and containers that are there may be cut off
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


class _RuntimeConfig(msgspec.Struct, frozen=True):
    """What a runtime adds for each ``capability`` of the configuration that it knows."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = msgspec.field(default={}, name=ANNOTATIONS)


class Attachment(msgspec.Struct, frozen=True):
    """One of those that GC shall leave."""

    container_id: str = msgspec.field(name="containerID")
    ifname: str = msgspec.field(name="ifname")


class Config(msgspec.Struct, frozen=True):
    """A network configuration. ``labels`` and ``namespace`` are ours: whom its containers are for policies.

    So are ``socket`` and ``timeout`` (seconds to wait for an agent that starts), which axo-cni reads too.
    Libraries of runtimes write the attachments under both names: the specification's text has had both.
    """

    name: str = ""
    cni_version: str = msgspec.field(default="0.3.0", name="cniVersion")
    type: str = ""
    socket: str = ""
    timeout: Annotated[float, msgspec.Meta(ge=0, le=600)] = 15.0
    labels: dict[str, str] = {}
    namespace: str = "default"
    args: _Args = _Args()
    capabilities: dict[str, bool] = {}
    runtime: _RuntimeConfig = msgspec.field(default=_RuntimeConfig(), name="runtimeConfig")
    dns: dict[str, object] = {}
    ip_masq: bool = msgspec.field(default=True, name="ipMasq")  # the agent's configuration decides
    prev_result: object = msgspec.field(default=None, name="prevResult")
    valid: list[Attachment] | None = msgspec.field(default=None, name=_ATTACHMENTS[0])
    valid_too: list[Attachment] | None = msgspec.field(default=None, name=_ATTACHMENTS[1])

    @property
    def valid_attachments(self) -> set[tuple[str, str]] | None:
        """Container and interface of each."""
        if self.valid is None and self.valid_too is None:
            return None
        return {(each.container_id, each.ifname) for each in (*(self.valid or ()), *(self.valid_too or ()))}


_FIELDS = frozenset(each.encode_name for each in msgspec.structs.fields(Config))


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
        """Of all places that can have them, later ones win; None where a pod's object has them.

        A runtime that gives no namespace (podman) has a container, and no pod.
        """
        own = {
            **self.config.labels,
            **self.config.runtime.labels,
            **_labels(self.config.runtime.annotations.get(ANNOTATION, "")),
            **{label.key: label.value for label in self.config.args.cni.labels},
            **_labels(self.args.get("AXO_LABELS", "")),
        }
        is_pod = self.args.get("K8S_POD_NAMESPACE") and self.args.get("K8S_POD_NAME")
        return None if is_pod and not own else own


#: Which variables a command needs.
_NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "STATUS": (),
    "GC": (),
}
#: From which version on there is a command.
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
#: Keys of CNI_ARGS that mean something here.
_ARGS = ("IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "AXO_LABELS")


def parse(environment: Mapping[str, str], text: bytes) -> Request:
    """Raises `CniError`."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _NEEDS:
        known = f"one of {', '.join((*_NEEDS, 'VERSION'))} belongs there"
        raise _bad_variable("CNI_COMMAND", command, known)
    for name in _NEEDS[command]:
        if not environment.get(name):
            raise CniError(Code.INVALID_ENVIRONMENT, f"{name} is missing", f"{command} needs it")
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if container_id and not _NAME.fullmatch(container_id):
        raise _bad_variable("CNI_CONTAINERID", container_id, _NAMES)
    if ifname and not _INTERFACE.fullmatch(ifname):
        known = "an interface's name has at most 15 letters, digits, '_', '.', '@', '+' and '-'"
        raise _bad_variable("CNI_IFNAME", ifname, known)
    config, fields = _config(text)
    if command != "DEL":  # what was never let in must be let go
        _check_fields(fields, config)
    if VERSIONS.index(config.cni_version) < VERSIONS.index(since := _SINCE.get(command, VERSIONS[0])):
        message = f"cniVersion is {config.cni_version!r}, which has no {command}"
        raise CniError(Code.INCOMPATIBLE_VERSION, message, f"it came with {since}")
    args = _pairs(environment.get("CNI_ARGS", ""))
    if command == "ADD":
        _check_args(args)
    request = Request(command, config, container_id, environment.get("CNI_NETNS", ""), ifname, args)
    if command == "ADD":
        _check_labels(request.labels or {})
    return request


_NAMES = "letters, digits, '_', '.' and '-' are allowed, a letter or digit first"


def _bad_variable(name: str, value: str, known: str) -> CniError:
    return CniError(Code.INVALID_ENVIRONMENT, f"{name} is {value[:80]!r}", known)


def _config(text: bytes) -> tuple[Config, Mapping[str, object]]:
    """And all fields that are there. Runtimes in Go write null for an empty map or list."""
    try:
        found = msgspec.json.decode(text, type=dict[str, object])
        for name in _ATTACHMENTS:
            if found.get(name, ...) is None:
                found[name] = []
        config = msgspec.convert(_without_nulls(found), Config)
    except msgspec.ValidationError as error:
        raise CniError(Code.INVALID_CONFIG, f"network configuration: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CniError(Code.UNDECODABLE, f"the network configuration is no JSON: {error}") from error
    if config.cni_version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"cniVersion is {config.cni_version!r}",
            f"supported are {', '.join(VERSIONS)}",
        )
    return config, found


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _check_fields(fields: Mapping[str, object], config: Config) -> None:
    for name, value in fields.items():
        if name not in _FIELDS and not name.startswith("cni.dev/"):
            # Were it passed over, a container might stand under other policies than somebody meant.
            found = f"{name} is {msgspec.json.encode(value)[:80].decode(errors='replace')}"
            raise CniError(
                Code.UNSUPPORTED_FIELD,
                f"network configuration: {found}; axo-cni has no such field",
                f"remove it; those there are: {', '.join(sorted(_FIELDS))}",
            )
    for name, text in (("name", config.name), ("namespace", config.namespace)):
        if not _NAME.fullmatch(text):
            raise CniError(Code.INVALID_CONFIG, f"network configuration: {name} is {text[:80]!r}", _NAMES)


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if part and not equals:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_ARGS: {part[:80]!r} is no pair",
                "expected KEY=VALUE;KEY=VALUE",
            )
        if part:
            pairs[key] = value
    return pairs


def _check_args(pairs: Mapping[str, str]) -> None:
    for key, value in pairs.items():
        if key.startswith("K8S_POD_NAME") and value and not _NAME.fullmatch(value):
            raise _bad_variable(f"CNI_ARGS: {key}", value, _NAMES)
        if key not in _ARGS and pairs.get("IgnoreUnknown", "").lower() not in {"1", "true"}:
            raise CniError(
                Code.INVALID_ENVIRONMENT,
                f"CNI_ARGS: {key[:80]!r} is not known",
                f"known are {', '.join(_ARGS)}; IgnoreUnknown=1 has others passed over",
            )


def _labels(text: str) -> dict[str, str]:
    """From ``key=value,key=value``."""
    pairs = (pair.strip().partition("=") for pair in text.split(",") if pair.strip())
    return {key: value for key, _, value in pairs}


def _check_labels(labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        if not is_label_key(key):
            raise CniError(
                Code.INVALID_CONFIG,
                f"labels: {key[:80]!r} is no key of a label",
                "[prefix/]name: at most 63 letters, digits, '-', '_' and '.'; the prefix is a DNS name",
            )
        if not is_label_value(value):
            raise CniError(
                Code.INVALID_CONFIG,
                f"labels: {key} is {value[:80]!r}",
                "a value has at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends",
            )

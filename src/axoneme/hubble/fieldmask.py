"""Which fields of ``flow.Flow`` somebody wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

from axoneme.hubble.schema import message, serialized

_MOST: Final = 1000


class MaskError(ValueError):
    """A path that is none of a flow's."""


class Mask:
    """``paths`` as ``source.pod_name``; none of them: everything."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        """Raises `MaskError`."""
        if len(paths) > _MOST:
            raise MaskError(f"field_mask: {len(paths)} paths; {_MOST} at most")
        described = message("flow.Flow").DESCRIPTOR
        self._mask = message("google.protobuf.FieldMask")(paths=paths)
        for path in paths:
            if not message("google.protobuf.FieldMask")(paths=[path]).IsValidForDescriptor(described):
                raise MaskError(f"field_mask: {path!r} is no field of a flow")
        self.paths = frozenset(paths)
        self._whole = {path for path in self.paths if "." not in path}
        self._parts = {path.partition(".")[0] for path in self.paths} - self._whole

    @classmethod
    def of(cls, request: Any) -> Self:
        """Of a request that may have a ``field_mask``."""
        return cls(tuple(request.field_mask.paths))

    def wants(self, *fields: str) -> bool:
        """Whether anything of one of these is wanted."""
        return not self.paths or any(field in self._whole or field in self._parts for field in fields)

    def wants_inside(self, outer: str, inner: str) -> bool:
        """The same of ``outer.inner``, which has no parts itself."""
        return not self.paths or outer in self._whole or f"{outer}.{inner}" in self.paths

    def inside(self, field: str) -> bool:
        """Whether only some of what the field has inside is wanted."""
        return field in self._parts

    def trim(self, flow: Any) -> Any:
        """The flow with what is wanted of it: the same, when that is all."""
        if not self.paths:
            return flow
        left = message("flow.Flow")()
        self._mask.MergeMessage(flow, left)
        return left

    def trim_bytes(self, flow: bytes) -> bytes:
        if not self.paths:
            return flow
        return serialized(self.trim(message("flow.Flow").FromString(flow)))


EVERYTHING: Final = Mask()

"""Time and chance as the processes of a sandbox use them; what decides gets them handed in."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from axoneme.model.documents import ALPHABET
from axoneme.sandbox.workloads.changes import Surroundings


def now() -> str:
    """The time as Kubernetes writes it into objects (RFC 3339, whole seconds)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def surroundings() -> Surroundings:
    return Surroundings(now=now(), suffix=_suffix, uid=lambda: str(uuid.uuid4()))


def _suffix() -> str:
    return "".join(random.choices(ALPHABET, k=5))

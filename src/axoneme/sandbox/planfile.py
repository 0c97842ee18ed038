"""The plan of a sandbox on disk, ``sandbox.yaml``."""

from __future__ import annotations

import msgspec

from axoneme.model.paths import ManifestError
from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.plan import Plan


def save(plan: Plan, layout: Layout) -> None:
    # JSON is YAML in which a name such as "y" stays a name.
    layout.plan.write_bytes(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")


def load(layout: Layout) -> Plan:
    """Raises SandboxError when there is no sandbox, or only half of one."""
    from axoneme.model.yamltext import single

    try:
        return msgspec.convert(single(layout.plan.read_bytes(), str(layout.plan)), Plan).check()
    except FileNotFoundError:
        if not layout.directory.exists():
            raise SandboxError(f"there is no sandbox {layout.name}; axo sandbox up makes one") from None
        raise SandboxError(
            f"sandbox {layout.name} was never complete; axo sandbox down --name {layout.name} clears it away"
        ) from None
    except ManifestError as failure:
        raise SandboxError(str(failure)) from failure
    except msgspec.ValidationError as failure:
        raise SandboxError(f"{layout.plan}: {failure}") from failure

"""The plan of a sandbox on disk, ``sandbox.yaml``."""

from __future__ import annotations

import msgspec

from axoneme.sandbox.errors import SandboxError
from axoneme.sandbox.layout import Layout
from axoneme.sandbox.plan import Plan


def save(plan: Plan, layout: Layout) -> None:
    import yaml

    layout.plan.write_text(yaml.safe_dump(msgspec.to_builtins(plan), sort_keys=False))


def load(layout: Layout) -> Plan:
    """Raises SandboxError when there is no sandbox, or only half of one."""
    import yaml

    try:
        return msgspec.convert(yaml.safe_load(layout.plan.read_text()), Plan).check()
    except FileNotFoundError:
        if not layout.directory.exists():
            raise SandboxError(f"there is no sandbox {layout.name}; axo sandbox up makes one") from None
        raise SandboxError(
            f"sandbox {layout.name} was never complete; axo sandbox down --name {layout.name} clears it away"
        ) from None
    except (yaml.YAMLError, msgspec.ValidationError) as failure:
        raise SandboxError(f"{layout.plan}: {failure}") from failure

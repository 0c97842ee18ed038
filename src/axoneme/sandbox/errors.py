"""What a user of the sandbox can get wrong, or meet."""

from __future__ import annotations


class SandboxError(Exception):
    """Says what is wrong with which sandbox, and what would put it right."""

"""What is said when a command fails: one sentence for what a user can meet, a traceback for a bug.

The kinds of failures are looked up by where they are defined, so that no command imports what it does
not use only to be able to fail.
"""

from __future__ import annotations

import click

#: Exceptions whose text is meant for users, with all that inherit from them.
_SPOKEN = {
    ("axoneme.rpc.errors", "RpcError"),
    ("axoneme.sandbox.errors", "SandboxError"),
    ("axoneme.sources.store", "StoreError"),
    ("axoneme.model.paths", "ManifestError"),
    ("axoneme.balancer.client", "ApiError"),
    ("axoneme.sources.config", "ConfigError"),
    ("axoneme.flows.flowfilter", "FilterError"),
    ("axoneme.history.sql", "QueryError"),
    ("axoneme.certificates.files", "CertificateError"),
}


class Failure(click.ClickException):
    """A command failed; its text names the object, and what would help."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        click.echo(f"error: {self.message}", err=True)


def sentence(failure: BaseException) -> str | None:
    """The text for the user; None when the failure is a fault of ours."""
    if isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        return sentence(failure.exceptions[0])
    if any((base.__module__, base.__qualname__) in _SPOKEN for base in type(failure).__mro__):
        return str(failure)
    if isinstance(failure, PermissionError) and failure.filename:
        return f"{failure.filename}: permission denied; sandboxes belong to root: run this with sudo"
    if isinstance(failure, OSError) and failure.filename:
        return f"{failure.filename}: {failure.strerror}"
    return None

"""What a shell offers: commands, kinds, names out of the store."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from axoneme.cli.place import Place
from axoneme.cli.root import cli

from .conftest import Axo, Sandbox


def offered(*words: str) -> list[str]:
    """For the last word, which may be empty."""
    *before, incomplete = words
    complete = ShellComplete(cli, {"obj": Place()}, "axo", "_AXO_COMPLETE")
    return [item.value for item in complete.get_completions(before, incomplete)]


def test_commands_without_importing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axoneme.cli.root.import_module", None)
    assert offered("de") == ["demo", "describe", "delete"]


def test_commands_of_groups() -> None:
    assert offered("sandbox", "") == ["down", "status", "up"]
    assert offered("policy", "") == ["why", "test", "lint", "preview", "suggest", "confirm"]


def test_kinds_and_names(sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    sandbox.pod("web-2", "shop")
    assert "policies" in offered("get", "po")
    assert offered("get", "pods", "") == ["web-1"]
    assert offered("-n", "shop", "get", "pods", "w") == ["web-2"]
    assert offered("get", "pods", "-n", "shop", "") == ["web-2"]
    assert offered("delete", "pod", "web-1", "w") == [], "it is there already"
    assert offered("get", "pod/w") == ["pod/web-1"]


def test_pods(sandbox: Sandbox) -> None:
    sandbox.pod("web-1")
    sandbox.put({"kind": "Namespace", "metadata": {"name": "web"}})
    sandbox.pod("db-1", "web")
    assert offered("exec", "w") == ["web-1"]
    assert offered("logs", "web-1", "-c", "") == ["main"]
    assert offered("policy", "why", "--from", "w") == ["web-1", "web/"]
    assert offered("policy", "why", "--to", "web/") == ["web/db-1"]
    assert offered("observe", "--not", "--pod", "w") == ["web-1", "web/"]


def test_nothing_is_offered_where_nothing_can_be_known(sandbox: Sandbox) -> None:
    assert offered("--sandbox", "other", "get", "pods", "") == []
    assert offered("get", "nonsense", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(axo: Axo, shell: str) -> None:
    assert "_AXO_COMPLETE" in axo("completion", shell).out
    assert axo("completion", "csh").code == 2

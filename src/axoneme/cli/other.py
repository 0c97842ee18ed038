"""`axo version` and `axo completion`."""

from __future__ import annotations

import json
import platform

import click
from click.shell_completion import get_completion_class

from axoneme import __version__

#: The variable by which a completion script asks for words.
_VARIABLE = "_AXO_COMPLETE"


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="In which form.")
def version(output: str | None) -> None:
    """Print versions: of this program, of what it runs on."""
    versions = {
        "axoneme": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if output:
        click.echo(json.dumps(versions, indent=4))
        return
    for name, value in versions.items():
        click.echo(f"{name} {value}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes `axo` in a shell, names of objects included.

    \b
    bash:  eval "$(axo completion bash)"       in ~/.bashrc
    zsh:   eval "$(axo completion zsh)"        in ~/.zshrc
    fish:  axo completion fish | source        in ~/.config/fish/config.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    root = context.find_root()
    click.echo(script(root.command, {}, root.info_name or "axo", _VARIABLE).source())

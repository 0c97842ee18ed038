"""`axo`, the command line: the top of the layers, which everything below can do without.

A command's module is imported when the command is called: `axo --help` and shell completion read the
table in `root`, nothing else. The two processes of a node do not even load the command line's library
(`daemons`), because they live long and their memory counts.
"""

from __future__ import annotations


def main() -> int:
    """The exit code: 0, 1 when something failed, 2 when it was called wrongly."""
    import sys

    from axoneme.cli import daemons

    if daemon := daemons.parse(sys.argv[1:]):
        return daemons.run(daemon)
    from axoneme.cli.root import run

    return run(sys.argv[1:])

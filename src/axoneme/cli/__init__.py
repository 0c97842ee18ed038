"""`axo`, the command line: the top of the layers."""


def main() -> None:
    from axoneme.cli.root import cli

    cli(prog_name="axo")

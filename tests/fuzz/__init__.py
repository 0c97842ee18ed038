"""What comes from outside is parsed under fire: `target` says how, `targets` hold a family of parsers each.

``python -m fuzz NAME [SECONDS]`` (in ``tests``) fuzzes one target; with atheris, where it is installed.
"""

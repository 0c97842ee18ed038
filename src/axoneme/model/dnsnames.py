"""DNS names in policies, exact and by pattern: ``matchName`` and ``matchPattern``.

Names are compared without regard to case and to a trailing dot. In a pattern ``*`` stands for any characters
within one part of a name, none included; alone it means every name; ``**.`` in front is one or more parts.
"""

from __future__ import annotations

import re

from axoneme.model.l7 import NameMatch
from axoneme.model.paths import Place

LONGEST = 255

_NAME = re.compile(r"[-a-z0-9_.]+\Z")
_PATTERN = re.compile(r"[-a-z0-9_.*]+\Z")


def name_match(place: Place) -> NameMatch:
    """A mapping with one of the two."""
    fields = place.fields(("matchName", "matchPattern"))
    name, pattern = fields.stated("matchName"), fields.stated("matchPattern")
    if (name is None) == (pattern is None):
        both = "neither of them" if name is None else "matchName and matchPattern"
        place.refuse("exactly one of matchName and matchPattern belongs here", both)
    if name is not None:
        return NameMatch(_checked(name, _NAME, "letters, digits, '-', '_' and '.'"))
    assert pattern is not None
    return NameMatch(_checked(pattern, _PATTERN, "letters, digits, '-', '_', '.' and '*'"), pattern=True)


def _checked(place: Place, form: re.Pattern[str], of: str) -> str:
    text = place.name().lower()
    plain = text.removesuffix(".")
    if len(text) > LONGEST or not plain or not form.match(plain):
        place.refuse(f"a DNS name of at most {LONGEST} characters belongs here: {of}")
    return plain


def expression(match: NameMatch) -> str:
    """The same as a regular expression for whole names, in lower case and without trailing dots.

    The root, which has no other name than its dot, is the empty text.
    """
    if not match.pattern:
        return re.escape(match.text)
    if not match.text.strip("*"):
        return r"([-a-z0-9_]+(\.[-a-z0-9_]+)*)?"
    many, rest = match.text.startswith("**."), match.text.removeprefix("**.")
    parts = (re.escape(part) for part in re.split(r"\*+", rest))
    return (r"([-a-z0-9_]+\.)+" if many else "") + "[-a-z0-9_]*".join(parts)

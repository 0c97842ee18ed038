"""Changes to JSON that leave it JSON: values replaced, taken away, doubled and exchanged.

Blind changes to bytes hardly ever get past the syntax; these reach what stands behind it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

_NUMBERS = (0, -1, 1, 255, 256, 65535, 65536, 1 << 24, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**30, 0.5, 1e308)
_TEXTS = (
    "", " ", "a", "0", "80", "-1", "\0", "\ud800", "\x1b[31m", "é", "../..", "a" * 254, "٣", "\u202e",
    "10.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "::/0", "::1", "fe80::1%eth0", "1.2.3.4.5", "0.0.0.0/0",
    "::ffff:1.2.3.4",
    "TCP", "ANY", "ICMP", "default", "Exists", "kube-system", "reserved:host", "k8s:app", "world", "9" * 400,
)  # fmt: skip


def mutated(data: bytes, longest: int, seed: int, blindly: Callable[[bytes, int], bytes]) -> bytes:
    """``blindly`` is for what is no JSON, and now and then for what is."""
    random = Random(seed)
    if random.random() < 0.15:
        return blindly(data, longest)
    try:
        tree = [json.loads(data)]
        for _ in range(random.choice((1, 1, 2, 4))):
            _change(tree, random)
        made = json.dumps(tree[0], ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return blindly(data, longest)
    return made if len(made) <= longest else blindly(data, longest)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """(container, key or index) of every value below."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        _places(value[key], found)
    return found


def _change(tree: list[Any], random: Random) -> None:
    places = _places(tree, [])
    if not places:
        return
    around, key = random.choice(places)
    match random.randrange(7):
        case 0 if around is not tree:
            del around[key]
        case 1 if isinstance(around, list):
            around.insert(key, copy.deepcopy(around[key]))
        case 2:
            other, its = random.choice(places)
            around[key] = copy.deepcopy(other[its])
        case 3 if isinstance(around, dict):
            around[random.choice(_TEXTS)] = around.pop(key)
        case 4 if isinstance(around[key], str) and around[key]:
            at = random.randrange(len(around[key]))
            around[key] = around[key][:at] + random.choice(_TEXTS) + around[key][at + random.randrange(2) :]
        case 5:
            for _ in range(random.choice((1, 2, 50, 900))):
                around[key] = [around[key]]
        case _:
            around[key] = _junk(random)


def _junk(random: Random) -> Any:
    return random.choice(
        (
            None,
            True,
            [],
            {},
            random.choice(_NUMBERS),
            random.choice(_TEXTS),
            random.randrange(1 << 33),
            {random.choice(_TEXTS): random.choice(_TEXTS)},
            [random.choice(_TEXTS)],
        )
    )

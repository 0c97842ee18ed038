"""Links by their pins: what keeps a program attached when the process that attached it is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from axoneme.datapath import bpf

#: Whether a link is where it should be.
IsHere = Callable[[bpf.LinkInfo], bool]


def keep(link: int, pin: Path) -> None:
    """Pins a new link, and closes its file descriptor.

    Without its pin, the link goes with that: nothing stays attached that nobody could find.
    """
    try:
        bpf.pin(link, pin)
    finally:
        os.close(link)


def replace(program: int, pin: Path, is_here: IsHere) -> bool:
    """Puts `program` into the link pinned at `pin`. False when there is none, or none at the right place any
    more: then it is gone."""
    try:
        link = bpf.pinned(pin)
    except bpf.NotFound:
        return False
    try:
        if not bpf.is_link(link):
            pin.unlink()
            return False
        info = bpf.link_info(link)
        if is_here(info):
            try:
                if info.program_id != bpf.program_info(program).id:
                    bpf.link_update(link, program)
                return True
            except bpf.BpfError as error:
                if error.errno != errno.ENOLINK:
                    raise
        elif info.is_attached:
            bpf.link_detach(link)
    finally:
        os.close(link)
    pin.unlink()
    return False


def holder(pin: Path, is_here: IsHere) -> int:
    """The id of the program that the link pinned at `pin` has, where that is at the right place; else 0."""
    try:
        link = bpf.pinned(pin)
    except bpf.BpfError:
        return 0
    try:
        if not bpf.is_link(link):
            return 0
        info = bpf.link_info(link)
        return info.program_id if is_here(info) else 0
    finally:
        os.close(link)


def detach(pin: Path) -> bool:
    """Takes the program off at once, and the pin away; False when there was none."""
    try:
        link = bpf.pinned(pin)
    except bpf.NotFound:
        return False
    try:
        if bpf.is_link(link) and bpf.link_info(link).is_attached:
            bpf.link_detach(link)
    finally:
        os.close(link)
    pin.unlink()
    return True

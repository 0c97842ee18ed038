"""What other processes do to a store in the tests: ``jobs JOB KEY TIMES -- BACKEND…``."""

from __future__ import annotations

import asyncio
import sys
import time

from axoneme.sources.store import Conflict, Put, Store

from .backends import open_from


async def increment(store: Store, key: str, times: int) -> None:
    """Adds one to a number, many times, by compare and swap; the others do the same."""
    for _ in range(times):
        while True:
            entry = await store.get(key)
            number = int(entry.value) if entry else 0
            try:
                await store.transact({key: entry.revision if entry else 0}, [put(key, number + 1)])
                break
            except Conflict:
                continue


async def write(store: Store, prefix: str, times: int) -> None:
    """Pairs of keys that change together."""
    for number in range(times):
        await store.transact({}, [put(f"{prefix}left", number), put(f"{prefix}right", number)])


async def scribble(store: Store, prefix: str, _: int) -> None:
    """Writes until it is killed, and says after each write what is there now."""
    number = 0
    while True:
        number += 1
        await store.transact({}, [put(f"{prefix}left", number), put(f"{prefix}right", number)])
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


async def stamp(store: Store, key: str, times: int) -> None:
    """Writes the time, one write for each line on the input."""
    for _ in range(times):
        await asyncio.to_thread(sys.stdin.readline)
        await store.put(key, repr(time.monotonic()).encode())


def put(key: str, number: int) -> Put:
    return Put(key, str(number).encode())


async def main() -> None:
    split = sys.argv.index("--")
    job, key, times = sys.argv[1:split]
    store = open_from(sys.argv[split + 1 :]).open()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        await globals()[job](store, key, int(times))
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())

"""Writes src/axoneme/proxy/kafka/messages.txt from the message definitions inside kafka-clients jars.

    python tools/kafka_messages.py kafka-clients-3.9.1.jar kafka-clients-4.4.0.jar

Versions that several releases define are taken from the last one; what an earlier one has below them is kept.
Tagged fields are left out: a proxy passes them on as they are, and no request has topics there.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "src/axoneme/proxy/kafka/messages.txt"
ENTITIES = {"topicName": "topic", "groupId": "group", "transactionalId": "transaction"}
ANY = (0, 32767)


def main(jars: list[str]) -> None:
    found: dict[tuple[int, str], list[tuple[range, dict[str, Any]]]] = {}
    for jar in jars:
        for message in messages(Path(jar)):
            if message["validVersions"] == "none":
                continue
            low, high = versions(message["validVersions"])
            before = found.get((message["apiKey"], message["type"]), [])
            older = [(range(old.start, min(old.stop, low)), each) for old, each in before if old.start < low]
            if older and all(
                layout(older[-1][1], number) == layout(message, number) for number in older[-1][0]
            ):
                low = older.pop()[0].start
            found[message["apiKey"], message["type"]] = [*older, (range(low, high + 1), message)]
    lines = [
        f"{number} {kind} {valid.start}-{valid.stop - 1} {spelt(message)}"
        for (number, kind), entries in sorted(found.items())
        for valid, message in entries
    ]
    TARGET.write_text("\n".join(lines) + "\n")


def messages(jar: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(jar) as archive:
        texts = [
            archive.read(name).decode()
            for name in archive.namelist()
            if re.match(r"common/message/.*json", name)
        ]
    read = [json.loads(re.sub(r"(?m)^\s*//.*$|\s//[^\"\n]*$", "", text)) for text in texts]
    return [each for each in read if each["type"] in ("request", "response")]


def versions(text: str) -> tuple[int, int]:
    """First and last; the last before the first: none."""
    if text == "none":
        return 1, 0
    low, _, high = text.partition("-")
    if text.endswith("+"):
        return int(text[:-1]), ANY[1]
    return int(low), int(high or low)


def layout(message: dict[str, Any], version: int) -> list[str]:
    """What a message of this version consists of."""
    common = {each["name"]: each["fields"] for each in message.get("commonStructs", [])}

    def walk(given: list[dict[str, Any]], path: str) -> list[str]:
        found = []
        for each in given:
            low, high = versions(each.get("versions", "0+"))
            if not low <= version <= high or "tag" in each:
                continue
            nullable = "nullableVersions" in each and versions(each["nullableVersions"])[0] <= version
            kind = each["type"]
            found.append(f"{path}{each['name']} {kind} {nullable} {each.get('default')}")
            inner = each.get("fields") or common.get(kind.removeprefix("[]"), [])
            found += walk(inner, f"{path}{each['name']}.")
        return found

    return [str(message["flexibleVersions"]), *walk(message.get("fields", []), "")]


def spelt(message: dict[str, Any]) -> str:
    common = {each["name"]: each["fields"] for each in message.get("commonStructs", [])}
    name = re.sub("(Request|Response)$", "", message["name"])
    flexible, _ = versions(message["flexibleVersions"])
    flexible = ANY[1] if message["flexibleVersions"] == "none" else flexible
    return " ".join([name, str(flexible), *fields(message.get("fields", []), common)])


def fields(given: list[dict[str, Any]], common: dict[str, Any]) -> list[str]:
    return [field(each, common) for each in given if not tagged(each)]


def tagged(given: dict[str, Any]) -> bool:
    if "tag" not in given:
        return False
    assert given["taggedVersions"] == given["versions"], given
    assert given["name"] != "TopicId" and given.get("entityType") != "topicName", given
    return True


def field(given: dict[str, Any], common: dict[str, Any]) -> str:
    """NAME:TYPE, then what is not as usual: /VERSIONS ?NULLABLE =DEFAULT ~ENTITY."""
    kind = given["type"]
    array = "[]" if kind.startswith("[]") else ""
    inner = kind.removeprefix("[]")
    if inner[0].isupper():
        inner = f"{{{' '.join(fields(given.get('fields') or common[inner], common))}}}"
    text = f"{given['name']}:{array}{inner}"
    low, high = versions(given.get("versions", "0+"))
    if (low, high) != ANY:
        text += f"/{low}-{'' if high == ANY[1] else high}"
    if "nullableVersions" in given:
        text += f"?{versions(given['nullableVersions'])[0]}"
    if "default" in given:
        text += f"={given['default']}"
    if given.get("entityType") in ENTITIES:
        text += f"~{ENTITIES[given['entityType']]}"
    return text


if __name__ == "__main__":
    main(sys.argv[1:])

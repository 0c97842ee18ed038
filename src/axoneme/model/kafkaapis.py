"""The requests of the Kafka protocol by name and number, and what clients' roles need of them.

Source: the protocol guide's table of API keys (kafka.apache.org/protocol), as far as Cilium's rules name
them.
"""

from __future__ import annotations

API_KEYS = {
    name: number
    for number, name in enumerate(
        (
            "produce",
            "fetch",
            "offsets",
            "metadata",
            "leaderandisr",
            "stopreplica",
            "updatemetadata",
            "controlledshutdown",
            "offsetcommit",
            "offsetfetch",
            "findcoordinator",
            "joingroup",
            "heartbeat",
            "leavegroup",
            "syncgroup",
            "describegroups",
            "listgroups",
            "saslhandshake",
            "apiversions",
            "createtopics",
            "deletetopics",
            "deleterecords",
            "initproducerid",
            "offsetforleaderepoch",
            "addpartitionstotxn",
            "addoffsetstotxn",
            "endtxn",
            "writetxnmarkers",
            "txnoffsetcommit",
            "describeacls",
            "createacls",
            "deleteacls",
            "describeconfigs",
            "alterconfigs",
        )
    )
}

#: What Cilium lets a role do, and what clients have come to need for the same job since: producers number
#: their records (the default from 3.0 on) and write in transactions, consumers look whether the log before
#: them was cut, groups are kept by one call and shared, topics are described in parts, telemetry is offered.
ROLES = {
    "produce": (0, 3, 10, 18, 22, 24, 25, 26, 28, 71, 72, 75),
    "consume": (1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18, 23, 68, 71, 72, 75, 76, 78, 79),
}

#: These pass whatever rules say: they are about nothing that a rule could name, and without them a client
#: does not get to its first request.
ALWAYS = frozenset((API_KEYS["saslhandshake"], API_KEYS["apiversions"], 36))

#: What Kafka itself calls those of the roles' requests, and of those that always pass, that have no such name
#: above.
OTHER_NAMES = {
    "listoffsets": 2,
    "saslauthenticate": 36,
    "consumergroupheartbeat": 68,
    "gettelemetrysubscriptions": 71,
    "pushtelemetry": 72,
    "describetopicpartitions": 75,
    "sharegroupheartbeat": 76,
    "sharefetch": 78,
    "shareacknowledge": 79,
}


def number_of(name: str) -> int | None:
    """By any name that it has, in lower case; None for what no rule can name."""
    return API_KEYS.get(name, OTHER_NAMES.get(name))

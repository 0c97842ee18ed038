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

#: What Cilium lets a role do, and two requests that clients have come to make since: producers that number
#: their records (the default from 3.0 on) begin with InitProducerId, and consumers look with
#: OffsetForLeaderEpoch whether the log before them was cut.
ROLES = {
    "produce": (0, 3, 18, 22),
    "consume": (1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 18, 23),
}

"""Programs in pods that call services by their names, for the demonstration.

Nothing is made up here: the program's own libc asks the cluster's DNS, connects to the address that it is
told, and whoever is behind the service answers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

from axoneme.cli.tables import Table, show
from axoneme.sandbox import execute

#: Seconds for a call to come to what it should: nodes hear of services one after the other.
_WITHIN = 10.0

_PROGRAM = """
import json, socket, sys, urllib.parse, urllib.request
url, said = urllib.parse.urlsplit(sys.argv[1]), {"address": "", "pod": "", "failure": ""}
try:
    said["address"] = socket.getaddrinfo(url.hostname, url.port or 80, type=socket.SOCK_STREAM)[0][4][0]
    answer = json.load(urllib.request.urlopen(url.geturl(), timeout=2))
    said["pod"] = f"{answer['namespace']}/{answer['pod']}"
except OSError as failure:
    said["failure"] = str(getattr(failure, "reason", failure))
print(json.dumps(said))
"""


class Call(NamedTuple):
    """``pod`` is the one that calls; ``workload`` the one of which a pod shall answer, empty for nobody."""

    namespace: str
    pod: str
    url: str
    workload: str = ""


class Said(NamedTuple):
    """What a call came to: the service's address, and the pod that answered or why none did."""

    address: str
    pod: str
    failure: str

    def fulfils(self, call: Call) -> bool:
        """Whether the name was found, and the right one answered."""
        right = self.pod.startswith(f"{call.workload}-") if call.workload else not self.pod
        return bool(self.address) and right


def run(sandbox: str, calls: Iterable[Call]) -> int:
    """Makes the calls and shows them; how many came to something else than they should."""
    table = Table(["FROM", "CALLS", "ADDRESS OF THE NAME", "ANSWERED BY", ""])
    wrong = 0
    for call in calls:
        said = _settled(sandbox, call)
        wrong += not said.fulfils(call)
        table.rows.append(
            [
                f"{call.namespace}/{call.pod}",
                call.url,
                said.address,
                said.pod or f"nobody ({said.failure})",
                "yes" if said.fulfils(call) else "no",
            ]
        )
    show(table)
    return wrong


def _settled(sandbox: str, call: Call) -> Said:
    until = time.monotonic() + _WITHIN
    while True:
        argv = (sys.executable, "-I", "-S", "-c", _PROGRAM, call.url)
        said = Said(**json.loads(execute.output_of(sandbox, call.namespace, call.pod, argv)))
        if said.fulfils(call) or time.monotonic() > until:
            return said

"""What `axo status` says of load balancing, of several nodes in one line."""

from __future__ import annotations

import pytest

from axoneme.cli.balancing import line
from axoneme.services.view import BalancingSummary


@pytest.mark.parametrize(
    ("empty", "words"),
    [
        ({"node1": 0, "node2": 0}, ""),
        ({"node1": 2, "node2": 2}, "2 without backends (axo service list --problems)"),
        ({"node1": 1, "node2": 3}, "3 without backends at node2 (axo service list --problems --node node2)"),
    ],
)
def test_services_without_backends_are_counted_where_the_command_lists_them(
    empty: dict[str, int], words: str
) -> None:
    """A policy Local leaves nodes without backends that others have: that node's list has these."""
    summaries = {
        node: BalancingSummary(9, 18, 4, many, "random", "snat", "/x") for node, many in empty.items()
    }
    said = line(summaries)
    assert said.endswith(words or "at sockets")

"""The way to proxies is for the packets that the datapath marks."""

from axoneme.datapath.schema import Schema
from axoneme.net import proxying
from axoneme.proxy.sockets import OWN_PORTS


def test_the_marks_are_the_datapaths() -> None:
    marks = Schema.load().enum("mark")
    assert (marks["MARK_TO_PROXY"], marks["MARK_PROXY_MASK"]) == (proxying.MARK, proxying.MASK)


def test_ports_are_those_of_proxies() -> None:
    assert OWN_PORTS[-1] == proxying.LAST_PORT

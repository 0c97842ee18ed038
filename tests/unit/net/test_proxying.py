"""The way to proxies is for the packets that the datapath marks."""

from axoneme.datapath.schema import Schema
from axoneme.net import proxying


def test_the_marks_are_the_datapaths() -> None:
    marks = Schema.load().enum("mark")
    assert (marks["MARK_TO_PROXY"], marks["MARK_PROXY_MASK"]) == (proxying.MARK, proxying.MASK)

"""What a relay is asked for is what our own filters let through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.flows.flow import ObserveRequest
from axoneme.flows.flowfilter import FilterError, FlowFilter
from axoneme.hubble import asking
from axoneme.hubble.filters import Filters
from unit.hubble import logs

VALUES: dict[str, Any] = {
    "verdict": st.sampled_from(["DROPPED", "forwarded"]),
    "pod": st.sampled_from(["web", "shop/web-1", "shop/", "nobody"]),
    "from_pod": st.sampled_from(["shop/web", "db"]),
    "to_namespace": st.sampled_from(["shop", "data"]),
    "namespace": st.sampled_from(["shop", "data"]),
    "workload": st.sampled_from(["web", "StatefulSet/db"]),
    "label": st.sampled_from(["app=web", "tier"]),
    "identity": st.sampled_from([300, "world"]),
    "ip": st.sampled_from(["10.0.0.0/24", "fd00::4"]),
    "to_port": st.sampled_from([80, 53]),
    "protocol": st.sampled_from(["tcp", "udp"]),
    "direction": st.sampled_from(["ingress", "egress"]),
    "node": st.sampled_from(["n1", "n2"]),
    "type": st.sampled_from(["drop", "l7"]),
    "http_method": st.sampled_from(["GET", "POST"]),
    "from_service": st.sampled_from(["shop/web", "edge"]),
}
FILTERS = st.fixed_dictionaries(
    {}, optional={name: st.tuples(each) | st.tuples(each, each) for name, each in VALUES.items()}
).map(lambda fields: FlowFilter(**fields))


@settings(max_examples=60)
@given(st.integers(0, 1000), st.lists(FILTERS, max_size=2), st.lists(FILTERS, max_size=1))
def test_hubbles_filters_let_the_same_flows_through(
    seed: int, shown: list[FlowFilter], hidden: list[FlowFilter]
) -> None:
    log = logs.log()
    records = logs.flows(log, seed, 60)
    try:
        asked = asking.request(ObserveRequest(shown, hidden))
    except FilterError as error:
        assert "a relay cannot hold it" in str(error)
        return
    theirs = Filters(log, logs.SITE, asked.whitelist, asked.blacklist).mask(records)
    assert np.array_equal(theirs, log.matcher(shown, hidden).mask(records))


@pytest.mark.parametrize("wanted", [FlowFilter(event=("new",)), FlowFilter(verdict=("NONSENSE",))])
def test_what_hubble_has_no_word_for_is_refused(wanted: FlowFilter) -> None:
    with pytest.raises(FilterError):
        asking.request(ObserveRequest([wanted]))

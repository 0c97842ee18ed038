"""A file is changed as little as possible, and says exactly what was wanted."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from axoneme.balancer.yamledit import rewrite
from axoneme.model.balancer import Backend, Desired, Frontend, Pool, Service
from axoneme.model.shapes import convert
from axoneme.model.yamltext import single

FILE = """\
# The city's balancers.
pools: []

services:
  # The shop
  - name: web           # in German: netz
    frontends: [{address: 203.0.113.10, port: 80}]
    backends:
      # rack 1
      - {address: 10.0.0.1, weight: 1}   # old
      # rack 2
      - address: 10.0.0.2
        port: 8080     # tomcat
    affinity: 30

  # names
  - name: dns
    frontends:
      - {address: 203.0.113.10, port: 53, protocol: UDP}
"""


def read(text: str) -> Desired:
    return convert(single(text.encode(), "lb.yaml"), Desired)


def rewritten(text: str, after: Desired) -> str:
    made = rewrite(text, msgspec.to_builtins(read(text)), msgspec.to_builtins(after))
    assert read(made) == after
    return made


def replaced(desired: Desired, name: str, **fields: Any) -> Desired:
    services = tuple(
        msgspec.structs.replace(each, **fields) if each.name == name else each for each in desired.services
    )
    return msgspec.structs.replace(desired, services=services)


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


DESIRED = read(FILE)
OLD, TOMCAT = DESIRED.services[0].backends


def test_a_field_more_stands_in_the_line_it_belongs_to() -> None:
    drained = (msgspec.structs.replace(OLD, drain=True), TOMCAT)
    made = rewritten(FILE, replaced(DESIRED, "web", backends=drained))
    assert changed_lines(FILE, made) == (
        ["      - {address: 10.0.0.1, weight: 1}   # old"],
        ["      - {address: 10.0.0.1, weight: 1, drain: true}   # old"],
    )
    assert rewritten(made, DESIRED) == FILE


def test_a_field_more_of_a_mapping_in_lines_is_a_line() -> None:
    made = rewritten(
        FILE, replaced(DESIRED, "web", backends=(OLD, msgspec.structs.replace(TOMCAT, weight=5)))
    )
    assert changed_lines(FILE, made) == ([], ["        weight: 5"])
    assert rewritten(made, DESIRED) == FILE


def test_a_backend_comes_and_goes() -> None:
    new = Backend("10.0.0.3", 80)
    made = rewritten(FILE, replaced(DESIRED, "web", backends=(OLD, TOMCAT, new)))
    assert changed_lines(FILE, made) == ([], ["      - {address: 10.0.0.3, port: 80}"])
    assert rewritten(made, DESIRED) == FILE


def test_a_service_goes_and_the_comments_of_the_others_stay() -> None:
    made = rewritten(FILE, msgspec.structs.replace(DESIRED, services=DESIRED.services[1:]))
    assert "tomcat" not in made
    assert "# names\n  - name: dns\n" in made


def test_a_file_without_services_gets_some() -> None:
    text = "machine: {uplinks: [eth0]}  # the only one\n"
    made = rewrite(text, {}, msgspec.to_builtins(DESIRED))
    assert made.startswith(text)
    plain = single(made.encode(), "")
    assert isinstance(plain, dict)
    assert convert({"services": plain["services"]}, Desired).services == DESIRED.services


@pytest.mark.parametrize("name", ["y", "no", "1e3", "0o17", "123", "null", "a"])
def test_names_that_look_like_something_else_stay_names(name: str) -> None:
    rewritten(FILE, msgspec.structs.replace(DESIRED, services=(*DESIRED.services, Service(name, FRONT))))


FRONT = (Frontend("203.0.113.9", port=1),)
names = st.sampled_from(["ax", "bx", "cx", "dx"])
backends = st.builds(
    Backend,
    st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "10.0.0.4"]),
    st.none() | st.integers(1, 3),
    weight=st.integers(0, 2),
    drain=st.booleans(),
)
services = st.builds(
    Service,
    names,
    st.just(FRONT),
    st.lists(backends, max_size=4).map(tuple),
    affinity=st.integers(0, 1),
    source_ranges=st.none() | st.just(()) | st.just(("192.0.2.0/24",)),
)
pools = st.builds(
    Pool, names, st.lists(st.sampled_from(["192.0.2.0/24", "2001:db8::/64"]), min_size=1).map(tuple)
)
wanted = st.builds(Desired, st.lists(pools, max_size=2).map(tuple), st.lists(services, max_size=4).map(tuple))


class Indented(yaml.SafeDumper):
    """Items of lists stand further to the right than their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


@given(
    wanted,
    wanted,
    st.sampled_from([True, False, None]),
    st.booleans(),
    st.sampled_from([Indented, yaml.SafeDumper]),
)
def test_any_change_of_any_file(
    before: Desired, after: Desired, flow: bool | None, related: bool, dumper: Any
) -> None:
    if related:  # most of what was there stays
        after = msgspec.structs.replace(before, services=(*before.services[1:], *after.services[:1]))
    plain = msgspec.to_builtins(before)
    rewritten(yaml.dump(plain, Dumper=dumper, default_flow_style=flow, sort_keys=False), after)

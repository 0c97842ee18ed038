"""The tables of services in the kernel: lookup tables change as a whole, what others do is put right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench_node import node

from axoneme.datapath.maglevs import MaglevTables
from axoneme.datapath.plane import Constants, Datapath
from axoneme.services.maglev import PLACES, Shares


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Datapath]:
    with node(tmp_path_factory.mktemp("services") / "bpf", Constants()) as made:
        yield made.plane


@pytest.fixture
def maglev(loaded: Datapath) -> MaglevTables:
    loaded.maglev.delete(loaded.maglev.adopt())
    return loaded.maglev


def shares(number: int) -> Shares:
    return Shares(((f"10.1.0.{number % 250}:80", 1, number), ("10.2.0.1:80", 2, number + 1)))


def reopened(table: MaglevTables, plane: Datapath) -> MaglevTables:
    """As the next process sees it."""
    return MaglevTables(table.fd, plane.schema.struct("maglev_places"))


def test_the_schema_has_the_papers_prime(loaded: Datapath) -> None:
    assert loaded.schema.enum("maglev_range")["MAGLEV_PLACES"] == loaded.maglev.places == PLACES


def test_many_lookup_tables_are_written_and_read_back(maglev: MaglevTables) -> None:
    tables = {service: shares(service) for service in range(1, 260)}  # more than file descriptors at once
    assert maglev.write(tables) == len(tables) == len(maglev)
    for service in (1, 256, 257, 259):
        found = maglev.read(service)
        assert found is not None
        assert (found == tables[service].places()).all()
    assert maglev.read(260) is None
    assert maglev.delete([*tables, 260]) == len(tables)
    assert len(maglev) == 0
    assert maglev.read(1) is None


def test_what_stands_is_not_written_again_also_by_the_next_process(
    maglev: MaglevTables, loaded: Datapath
) -> None:
    maglev.write({7: shares(7), 8: shares(8)})
    assert maglev.write({7: shares(7), 8: shares(80)}) == 1
    following = reopened(maglev, loaded)
    assert sorted(following.adopt()) == [7, 8]
    assert following.write({7: shares(7), 8: shares(80), 9: shares(9)}) == 1
    following.close()


def test_a_lookup_table_that_somebody_removed_or_added_is_put_right(
    maglev: MaglevTables, loaded: Datapath
) -> None:
    maglev.write({7: shares(7), 8: shares(8)})
    maglev.refill = {7: shares(7), 8: shares(8)}.get
    assert sum(maglev.audit()) == 0
    other = reopened(maglev, loaded)
    other.write({7: shares(70), 9: shares(9)})
    other.delete([8])
    other.close()
    assert sum(maglev.audit()) == 3
    for service in (7, 8):
        found = maglev.read(service)
        assert found is not None
        assert (found == shares(service).places()).all()
    assert maglev.read(9) is None
    assert sum(maglev.audit()) == 0

"""What was learnt, in memory and in its file."""

from __future__ import annotations

from pathlib import Path

from axoneme.proxy.dns.journal import Journal
from axoneme.proxy.dns.memory import FLOOR, Memory
from axoneme.proxy.names import Answer, read_journal


def answer(
    time: int, *addresses: str, ttl: int = 60, name: str = "a.test", client: str = "10.0.0.1"
) -> Answer:
    return Answer(time, client, name, dict.fromkeys(addresses, ttl))


def test_what_lasts_longer_than_was_known_is_news() -> None:
    memory = Memory()
    assert memory.hear(answer(1000, "192.0.2.1", "192.0.2.2"))
    assert not memory.hear(answer(1001, "192.0.2.1"))
    assert not memory.hear(answer(1030, "192.0.2.1", ttl=30))  # a cache counts down
    assert memory.hear(answer(1002, "192.0.2.1"))  # also when each step was small
    assert memory.hear(answer(1002, "192.0.2.3"))
    assert memory.hear(answer(1002, "192.0.2.1", client="10.0.0.2"))


def test_the_kernel_has_what_the_agent_was_told_for_as_long_as_it_is_valid() -> None:
    memory = Memory()
    first = answer(1000, "192.0.2.1", ttl=10)
    memory.hear(first)
    assert not memory.sure(first)
    assert list(memory.untold(("10.0.0.1", "a.test"))) == [first]
    memory.told([first])
    assert not list(memory.untold(("10.0.0.1", "a.test")))
    assert memory.sure(answer(1009, "192.0.2.1")) and not memory.sure(answer(1010, "192.0.2.1"))
    assert not memory.sure(answer(1000, "192.0.2.1", "192.0.2.2"))
    memory.unsure()
    assert not memory.sure(first) and list(memory.untold(("10.0.0.1", "a.test"))) == [first]


def test_what_lasts_longer_than_was_told_is_told_again_and_stays_sure_meanwhile() -> None:
    memory = Memory()
    memory.hear(first := answer(1000, "192.0.2.1", ttl=10))
    memory.told([first])
    memory.hear(second := answer(1005, "192.0.2.1", "192.0.2.2", ttl=10))
    assert memory.sure(answer(1006, "192.0.2.1")) and not memory.sure(second)
    assert list(memory.untold(("10.0.0.1", "a.test"))) == [second]
    memory.hear(answer(1030, "192.0.2.1", ttl=10))
    assert not memory.sure(answer(1031, "192.0.2.1"))
    memory.told([second])  # what came after it is still to be told
    assert [each.addresses for each in memory.untold(("10.0.0.1", "a.test"))] == [{"192.0.2.1": 10}]


def test_a_name_keeps_the_addresses_heard_of_last() -> None:
    memory = Memory(most_each=2)
    for number in (1, 2, 3):
        memory.hear(answer(1000 + number, f"192.0.2.{number}"))
    memory.hear(answer(1010, "192.0.2.2"))
    memory.hear(answer(1011, "192.0.2.4"))
    assert sorted(a for each in memory.answers() for a in each.addresses) == ["192.0.2.2", "192.0.2.4"]


def test_names_not_heard_of_for_longest_are_forgotten_first() -> None:
    memory = Memory(most=5)
    for time, name in enumerate(("a", "b", "a", "c")):
        memory.hear(answer(time, "192.0.2.1", "192.0.2.2", name=name))
    assert {each.name for each in memory.answers()} == {"a", "c"} and len(memory) == 4


def test_a_client_with_names_without_end_displaces_only_its_own() -> None:
    memory = Memory(most=5)
    memory.hear(answer(1, "192.0.2.1", client="10.0.0.2"))
    for number in range(100):
        memory.hear(answer(2 + number, "192.0.2.1", "192.0.2.2", name=f"{number}.test"))
    assert [(each.client, each.name) for each in memory.answers()] == [
        ("10.0.0.2", "a.test"),
        ("10.0.0.1", "98.test"),
        ("10.0.0.1", "99.test"),
    ]
    memory.forget(200 + FLOOR)
    assert len(memory) == 0 and not list(memory.answers())


def test_addresses_are_forgotten_when_no_agent_needs_them_any_more() -> None:
    memory = Memory()
    memory.hear(answer(1000, "192.0.2.1", ttl=5))
    memory.hear(answer(1000, "192.0.2.2", ttl=2 * FLOOR))
    memory.forget(1000 + FLOOR)
    assert [each.addresses for each in memory.answers()] == [
        {"192.0.2.1": 5},
        {"192.0.2.2": 2 * FLOOR},
    ] or len(next(iter(memory.answers())).addresses) == 2
    memory.forget(1001 + FLOOR)
    assert [each.addresses for each in memory.answers()] == [{"192.0.2.2": 2 * FLOOR}]
    memory.forget(1001 + 2 * FLOOR)
    assert len(memory) == 0


def test_the_file_gives_back_what_was_heard_also_after_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "learnt.jsonl"
    journal = Journal(path)
    journal.add([answer(1, "192.0.2.1"), answer(2, "2001:db8::1")])
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"time":3,"client":"10')
    journal = Journal(path)
    journal.add([answer(4, "192.0.2.4")])
    assert [each.time for each in read_journal(path)] == [1, 2, 4]
    memory = Memory()
    memory.load(read_journal(path))
    assert sorted(a for each in memory.answers() for a in each.addresses) == [
        "192.0.2.1",
        "192.0.2.4",
        "2001:db8::1",
    ]
    journal.rewrite([answer(5, "192.0.2.5")])
    journal.add([answer(6, "192.0.2.6")])
    assert [each.time for each in read_journal(path)] == [5, 6]
    journal.close()


def test_a_file_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert not list(read_journal(tmp_path / "none"))

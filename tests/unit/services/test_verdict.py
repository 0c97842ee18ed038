"""Results of checks to up and down."""

from __future__ import annotations

from axoneme.services.verdict import Health, Verdict


def history(verdict: Verdict, results: str) -> list[str]:
    found = []
    for each in results:
        verdict.heard(each == "+")
        found.append(verdict.health.value)
    return found


def test_the_first_result_decides() -> None:
    assert history(Verdict(2, 3), "-") == ["down"]
    assert history(Verdict(2, 3), "+") == ["up"]


def test_results_in_a_row_turn_it() -> None:
    verdict = Verdict(2, 3, Health.UP)
    assert history(verdict, "--+---") == ["up"] * 5 + ["down"]
    assert history(verdict, "+-++") == ["down"] * 3 + ["up"]

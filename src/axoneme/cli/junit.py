"""Results in JUnit's XML, as CI systems read it: testsuites, testsuite, testcase, failure and error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree

#: What no XML 1.0 document may hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """``problem`` says what was not as expected, or with ``broken`` why nothing could be found out."""

    name: str
    seconds: float
    problem: str = ""
    detail: str = ""
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    began: datetime
    seconds: float
    cases: Sequence[Case]

    def count(self, *, broken: bool) -> int:
        return sum(bool(case.problem) and case.broken == broken for case in self.cases)


def document(name: str, suites: Sequence[Suite]) -> bytes:
    """The whole file, in UTF-8."""
    root = ElementTree.Element("testsuites", _totals(name, suites, sum(suite.seconds for suite in suites)))
    for suite in suites:
        element = ElementTree.SubElement(
            root,
            "testsuite",
            {
                **_totals(suite.name, [suite], suite.seconds),
                "skipped": "0",
                "timestamp": suite.began.isoformat(timespec="seconds"),
                "hostname": "localhost",
            },
        )
        for case in suite.cases:
            _case(element, suite, case)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return text + b"\n"


def _case(suite: ElementTree.Element, of: Suite, case: Case) -> None:
    attributes = {"name": case.name, "classname": of.name, "time": f"{case.seconds:.3f}"}
    element = ElementTree.SubElement(suite, "testcase", _clean(attributes.items()))
    if case.problem:
        kind = "error" if case.broken else "failure"
        problem = ElementTree.SubElement(element, kind, _clean([("message", case.problem), ("type", kind)]))
        problem.text = _NO_XML.sub("\ufffd", case.detail or case.problem)


def _totals(name: str, suites: Sequence[Suite], seconds: float) -> dict[str, str]:
    return _clean(
        [
            ("name", name),
            ("tests", str(sum(len(suite.cases) for suite in suites))),
            ("failures", str(sum(suite.count(broken=False) for suite in suites))),
            ("errors", str(sum(suite.count(broken=True) for suite in suites))),
            ("time", f"{seconds:.3f}"),
        ]
    )


def _clean(attributes: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: _NO_XML.sub("\ufffd", value) for name, value in attributes}

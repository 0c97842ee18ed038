"""The server keeps to its own document, whatever it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS

from axoneme.balancer.openapi import document
from axoneme.balancer.server import application
from balancer.test_api import FILE, Desk

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {each.ok().label: each.ok() for each in SCHEMA.get_all_operations()}
#: Names of what is there, so that not all of the questions are about nothing.
NAMES = {"service": "web", "backend": "a", "pool": "public"}
#: A type does not say that a pool must exist: such requests are refused with the field.
NOT_PROMISED = [check for check in CHECKS.get_all() if check.__name__ == "positive_data_acceptance"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("lb") / "lb.yaml"
    path.write_text(FILE)
    started: list[str] = []
    ready, end = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(application(Desk(path)))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        started.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await end.wait()
        await runner.cleanup()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    yield started[0]
    loop.call_soon_threadsafe(end.set)
    thread.join()
    loop.close()


@pytest.mark.parametrize("label", OPERATIONS)
def test_answers_are_those_of_the_document(server: str, label: str) -> None:
    operation: Any = OPERATIONS[label]

    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(), st.booleans())
    def ask(case: Any, known: bool) -> None:
        if known:
            case.path_parameters = {name: NAMES[name] for name in case.path_parameters or ()}
        case.call_and_validate(base_url=server, excluded_checks=NOT_PROMISED)

    ask()


def test_every_path_of_the_document_is_served_and_no_other() -> None:
    app = application(Desk.__new__(Desk))
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {(method.upper(), path) for path, item in document()["paths"].items() for method in item}
    assert served == described | {("GET", "/openapi.json")}

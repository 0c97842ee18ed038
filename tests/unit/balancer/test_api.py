"""The API over HTTP: operations, versions, refusals, and that it is what its document says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from axoneme.balancer.config import load
from axoneme.balancer.openapi import PATCH_TYPE
from axoneme.balancer.reports import ConnectionsReport, ServiceReport, StatusReport, counted
from axoneme.balancer.server import application
from axoneme.balancer.sources import Edit, FileSource
from axoneme.model.balancer import Desired, version

FILE = """\
pools: [{name: public, ranges: [192.0.2.0/29]}]
services:
- name: web
  frontends: [{address: 203.0.113.10, port: 80}]
  backends:
  - {address: 10.0.0.1, name: a}
  - {address: 10.0.0.2, port: 8080}
"""
WEB = "/v1/services/web"
A = f"{WEB}/backends/a"

Client = TestClient[Any, Any]


class Desk:
    """A file, and nothing behind it."""

    def __init__(self, path: Path) -> None:
        config, self.desired = load(path)
        self._source = FileSource(path, config, self.desired)

    async def change(self, edit: Edit) -> Desired:
        self.desired = await self._source.change(edit)
        return self.desired

    def status(self) -> StatusReport:
        return StatusReport(
            "lb", "1", 1, 0.0, version(self.desired), "", {}, 0, counted(()), 0, {}, (), 0, {}
        )

    def services(self) -> list[ServiceReport]:
        return [
            ServiceReport(each.name, version(each), (), each.algorithm, each.mode, 0, (), 0, 0)
            for each in self.desired.services
        ]

    def connections(self, service: str, backend: str, limit: int) -> ConnectionsReport:
        return ConnectionsReport(limit, ())


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    path = tmp_path / "lb.yaml"
    path.write_text(FILE)
    async with TestClient(TestServer(application(Desk(path)))) as made:
        yield made


async def refused(response: Any, status: int) -> dict[str, Any]:
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = await response.json()
    assert problem["status"] == status
    assert problem["detail"]
    return problem


async def test_a_service_comes_changes_and_goes(client: Client) -> None:
    new = {"name": "dns", "frontends": [{"pool": "public", "port": 53, "protocol": "UDP"}]}
    response = await client.put("/v1/services/dns", json=new)
    assert response.status == 201
    assert await response.json() == new
    tag = response.headers["ETag"]
    assert (await client.put("/v1/services/dns", json=new)).status == 200
    response = await client.get("/v1/services/dns")
    assert response.headers["ETag"] == tag
    assert [each["name"] for each in await (await client.get("/v1/services")).json()] == ["web", "dns"]
    assert (await client.delete("/v1/services/dns")).status == 204
    await refused(await client.get("/v1/services/dns"), 404)
    await refused(await client.delete("/v1/services/dns"), 404)


async def test_a_backend_is_patched(client: Client) -> None:
    headers = {"Content-Type": PATCH_TYPE}
    response = await client.patch(A, data=b'{"weight": 3, "drain": true}', headers=headers)
    assert await response.json() == {"name": "a", "address": "10.0.0.1", "weight": 3, "drain": True}
    response = await client.patch(A, data=b'{"drain": null}', headers=headers)
    assert await response.json() == {"name": "a", "address": "10.0.0.1", "weight": 3}
    found = await (await client.get(WEB)).json()
    assert found["backends"][0]["weight"] == 3
    # One without a name is called by its address and port.
    assert (await client.get(f"{WEB}/backends/10.0.0.2:8080")).status == 200
    response = await client.put(f"{WEB}/backends/b", json={"address": "10.0.0.3"})
    assert await response.json() == {"name": "b", "address": "10.0.0.3"}


async def test_who_saw_an_older_version_changes_nothing(client: Client) -> None:
    tag = (await client.get(A)).headers["ETag"]
    changed = {"name": "a", "address": "10.0.0.1", "weight": 2}
    assert (await client.put(A, json=changed, headers={"If-Match": tag})).status == 200
    problem = await refused(await client.put(A, json=changed, headers={"If-Match": tag}), 412)
    assert "somebody else" in problem["detail"]
    await refused(await client.put(A, json=changed, headers={"If-None-Match": "*"}), 412)
    await refused(await client.put("/v1/services/x", json={}, headers={"If-Match": "*"}), 422)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (A, {"address": "10.0.0.1", "weight": -1}, "weight"),
        (A, {"address": "10.0.0.1", "name": "b"}, "name"),
        (A, {"address": "10.0.0.300"}, "address"),
        (WEB, {"name": "web", "frontends": [{"address": "10.0.0.1", "prot": 1}]}, "frontends[0].prot"),
        (WEB, {"name": "web", "frontends": [{"pool": "privat", "port": 1}]}, "frontends[0].pool"),
        (
            "/v1/services/new",
            {"name": "new", "frontends": [{"address": "203.0.113.10", "port": 80}]},
            "frontends[0]",
        ),
        ("/v1/desired", {"services": [{"name": "web"}]}, "services[0].frontends"),
        ("/v1/pools/p", {"name": "p", "ranges": ["192.0.2.0/30"]}, "ranges[0]"),
    ],
)
async def test_a_refusal_names_the_field_of_the_request(
    client: Client, path: str, body: dict[str, Any], field: str
) -> None:
    before = await (await client.get("/v1/desired")).json()
    problem = await refused(await client.put(path, json=body), 422)
    assert problem["field"] == field
    assert problem["remedy"]
    assert await (await client.get("/v1/desired")).json() == before


async def test_requests_that_are_none(client: Client) -> None:
    await refused(await client.put(A, data=b"{", headers={"Content-Type": "application/json"}), 400)
    await refused(await client.put(A, data=b"[" * 100_000, headers={"Content-Type": "application/json"}), 400)
    await refused(await client.patch(A, data=b"[]", headers={"Content-Type": PATCH_TYPE}), 400)
    await refused(await client.put(A, data=b"{}", headers={"Content-Type": "text/plain"}), 415)
    await refused(await client.get("/v1/nothing"), 404)
    response = await client.post(A)
    assert "PUT" in response.headers["Allow"]
    await refused(response, 405)
    await refused(await client.get("/v1/connections?limit=0"), 422)
    await refused(await client.get("/v1/connections?limit=x"), 422)


async def test_a_name_that_a_page_in_a_browser_has_made_up_is_refused(client: Client) -> None:
    await refused(await client.get("/v1/status", headers={"Host": "evil.example"}), 421)
    await refused(await client.get("/v1/status", headers={"Host": "evil.example:80"}), 421)
    assert (await client.get("/v1/status", headers={"Host": "[::1]:80"})).status == 200
    assert (await client.get("/v1/status", headers={"Host": "localhost"})).status == 200


async def test_all_of_it_is_replaced_at_once(client: Client) -> None:
    desired = await (await client.get("/v1/desired")).json()
    desired["services"][0]["affinity"] = 60
    response = await client.put("/v1/desired", json=desired)
    assert response.headers["ETag"] == f'"{version(msgspec.convert(desired, Desired))}"'
    assert (await (await client.get(WEB)).json())["affinity"] == 60

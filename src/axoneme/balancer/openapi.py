"""The API's document (OpenAPI 3.1), made of the operations and of the types that the server reads."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, Final

import msgspec

from axoneme import __version__
from axoneme.balancer.api import OPERATIONS, Operation
from axoneme.balancer.reports import Problem

PROBLEM_TYPE: Final = "application/problem+json"
PATCH_TYPE: Final = "application/merge-patch+json"
JSON_TYPE: Final = "application/json"

_CONDITIONS: Final = {
    "If-Match": "Only if the object has one of these versions.",
    "If-None-Match": "`*`: only if there is no such object.",
}
_REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "The request cannot be read.",
    HTTPStatus.NOT_FOUND: "There is no such object.",
    HTTPStatus.CONFLICT: "It cannot be written where the desired state stands.",
    HTTPStatus.PRECONDITION_FAILED: "The object has another version.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is of another media type.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The result could not be put in force; `field` says why.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The store that holds the desired state cannot be reached.",
}


def document() -> dict[str, Any]:
    """Plain data, to be encoded as JSON."""
    types = [each for op in OPERATIONS for each in (op.gives, op.takes) if each not in (None, dict)]
    schemas, components = msgspec.json.schema_components(
        [*types, Problem], ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(map(str, [*types, Problem]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "axo lb",
            "version": __version__,
            "description": "The standalone load balancer. Objects carry their version as ETag.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [
            *(_parameter(name, "path", str) for name in re.findall(r"{(\w+)}", operation.path)),
            *(_parameter(name, "query", kind) for name, kind in operation.query.items()),
        ],
        "responses": _responses(operation, schemas),
    }
    if operation.changes:
        found["parameters"] += [
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _CONDITIONS.items()
        ]
    if operation.takes is not None:
        merges = operation.takes is dict
        schema = {"type": "object"} if merges else schemas[str(operation.takes)]
        content = {PATCH_TYPE: {"schema": schema}} if merges else {JSON_TYPE: {"schema": schema}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _parameter(name: str, where: str, kind: type) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": 1} if kind is int else {"type": "string"}
    if where == "path":
        schema["minLength"] = 1
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    problem = {PROBLEM_TYPE: {"schema": schemas[str(Problem)]}}
    refused = {
        str(status.value): {"description": text, "content": problem}
        for status, text in _REFUSALS.items()
        if _may_be(operation, status)
    }
    if operation.gives is None:
        return {"204": {"description": "It is gone."}, **refused}
    answer: dict[str, Any] = {
        "description": "As it is now.",
        "content": {JSON_TYPE: {"schema": schemas[str(operation.gives)]}},
    }
    if not operation.query and operation.id not in ("getStatus", "listServices"):
        answer["headers"] = {"ETag": {"description": "Its version.", "schema": {"type": "string"}}}
    good = {"200": answer}
    if operation.method == "PUT":
        good["201"] = answer
    return {**good, **refused}


def _may_be(operation: Operation, status: HTTPStatus) -> bool:
    if status is HTTPStatus.NOT_FOUND:
        return "{" in operation.path
    if status is HTTPStatus.UNPROCESSABLE_ENTITY:
        return operation.changes or bool(operation.query)
    if status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.SERVICE_UNAVAILABLE):
        return operation.changes
    return operation.takes is not None

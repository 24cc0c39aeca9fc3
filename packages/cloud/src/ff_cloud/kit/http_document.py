"""The OpenAPI document says which refusals each operation may answer with, all of them problem documents."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI

from ff_core.contract.problem import MEDIA_TYPE, Problem

_EVERYWHERE = {
    "400": "The request is not one the server understands",
    "413": "The body is larger than the server takes",
    "429": "Too often; the header Retry-After says when to come back",
    "503": "A part of the server does not answer just now",
}
_WITH_CALLER = {"401": "No credential, or not one that is good", "403": "The credential may not do this"}
_WITH_INPUT = {"404": "There is no such thing, or it is not yours", "422": "Not well formed; `errors` says which field and why"}
_WITH_EFFECT = {"404": _WITH_INPUT["404"], "409": "This can't be done in the present state"}
_METHODS = frozenset({"get", "put", "post", "patch", "delete"})


def document_problems(app: FastAPI) -> None:
    """Let ``app.openapi()`` tell the problem documents that operations answer with; what an operation says itself stays."""
    plain: Callable[[], dict[str, Any]] = app.openapi
    described: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        document = plain()
        if not described or described[0] is not document:
            _describe(document)
            described[:] = [document]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _describe(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            operation = item[method]
            responses = operation["responses"]
            # FastAPI's own description of 422 is not what we answer.
            responses.pop("422", None)
            for status, description in _refusals(method, path, operation).items():
                responses.setdefault(status, _problem(description))


def _refusals(method: str, path: str, operation: Mapping[str, Any]) -> Mapping[str, str]:
    refusals = dict(_EVERYWHERE)
    acts = method != "get"
    if acts or "security" in operation:
        refusals |= _WITH_CALLER
    if operation.get("parameters") or "requestBody" in operation:
        refusals |= _WITH_INPUT
    if acts or "{" in path:
        refusals |= _WITH_EFFECT
    return refusals


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}

"""Counting an app's requests by route."""

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import Scope

from ff_cloud.kit.http_middleware import Answered, route_of
from ff_cloud.kit.metrics import OTHER, HttpMetrics


def counting(app: FastAPI, metrics: HttpMetrics) -> Answered:
    """What counts the requests of ``app``, each of whose routes is there from the start. Call it when all routes are."""
    for context in iter_route_contexts(app.routes):
        if context.path is not None:
            for method in sorted(context.methods or ()):
                metrics.expect(method, context.path)

    def answered(scope: Scope, status: int, answer_s: float | None) -> None:
        metrics.answered(scope["method"], route_of(scope) or OTHER, status, answer_s)

    return answered

"""Request bodies and parameters: bounded, checked, refused without repeating what was sent."""

from typing import TypeVar

from pydantic import ValidationError

from ff_core.contract.base import Request as Body
from ff_core.contract.base import View
from ff_core.daemon.http import Request, Response
from ff_core.errors import InvalidInput

FIELD_CHARS_MAX = 200
ERRORS_MAX = 20

B = TypeVar("B", bound=Body)


async def read(request: Request, model: type[B]) -> B:
    """The body as ``model``. Raises what ``Request.body`` and :func:`parse` do."""
    return parse(await request.body(), model)


def parse(body: bytes, model: type[B]) -> B:
    """A body as ``model``. Raises ``InvalidInput`` with the list of errors."""
    try:
        return model.model_validate_json(body)
    except ValidationError as exc:
        errors = _said(exc)
    raise _refused(errors)  # outside the handler, so that no traceback carries the input along


def parameters(request: Request, model: type[B]) -> B:
    """The parameters of the address as ``model``. Raises ``InvalidInput``."""
    try:
        return model.model_validate(request.query_params, strict=False)
    except ValidationError as exc:
        errors = _said(exc)
    raise _refused(errors)


def _said(exc: ValidationError) -> list[dict[str, str]]:
    return [
        {"field": ".".join(map(str, e["loc"]))[:FIELD_CHARS_MAX], "message": e["msg"]}
        for e in exc.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_MAX]
    ]


def _refused(errors: list[dict[str, str]]) -> InvalidInput:
    first = errors[0]
    where = f"{first['field']}: " if first["field"] else ""
    return InvalidInput(f"The request is not well formed. {where}{first['message']}.", errors=errors)


def cursor(request: Request) -> int:
    """Where to continue a stream: the header ``Last-Event-ID``, else the parameter ``after``, else from the start."""
    for name, text in (
        ("Last-Event-ID", request.headers.get("last-event-id")),
        ("after", request.query_params.get("after")),
    ):
        if text:
            if not (text.isascii() and text.isdigit()) or len(text) > 18:
                errors = [{"field": name, "message": "must be the seq of an event, a whole number from 0"}]
                raise InvalidInput(f"{name} must be the seq of an event, a whole number from 0.", errors=errors)
            return int(text)
    return 0


def say(view: View, status: int = 200) -> Response:
    """A view as a response."""
    return Response(view.model_dump_json(), status, media_type="application/json")

"""Every error leaves the server as an RFC 9457 problem document. Nothing of what was sent is repeated in one."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import psycopg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from ff_cloud.errors import CloudError, MethodNotAllowed
from ff_core.contract.problem import MEDIA_TYPE, problem_of
from ff_core.errors import FFError, InvalidInput, NotFound

log = structlog.get_logger(__name__)

_ERRORS_MAX = 20
_FIELD_CHARS_MAX = 100
_BAD_TEXT = "A text has a character that can't be stored, such as NUL or half of a surrogate pair."


class UnsupportedRequest(FFError):
    """This request is not one the server understands."""

    code = "bad_request"
    status = 400


def install(app: FastAPI) -> None:
    """Make ``app`` answer with problem documents. What nobody expected is caught by ``http_middleware.CatchAll``."""
    app.add_exception_handler(FFError, _on_ff_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(UnicodeEncodeError, _on_bad_text)
    app.add_exception_handler(DataError, _on_bad_text)
    app.add_exception_handler(psycopg.DataError, _on_bad_text)


def request_id_of(scope: Scope) -> str | None:
    """The id that ``http_middleware.RequestContext`` gave the request."""
    return cast(str | None, scope.get("state", {}).get("request_id"))


def response_of(error: FFError, scope: Scope, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that tells ``error``."""
    problem = problem_of(error, request_id_of(scope))
    if problem.status >= 500:
        log.warning("http.problem", code=problem.code, detail=problem.detail, exc_info=error.__cause__)
    own = error.headers() if isinstance(error, CloudError) else {}
    content = problem.model_dump(mode="json", exclude_none=True)
    return JSONResponse(content, problem.status, {**(headers or {}), **own}, MEDIA_TYPE)


async def _on_ff_error(request: Request, error: Exception) -> JSONResponse:
    return response_of(cast(FFError, error), request.scope)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    errors = [_field_error(item) for item in cast(RequestValidationError, error).errors()[:_ERRORS_MAX]]
    first = f"{errors[0]['field']}: {errors[0]['message']}" if errors else ""
    return response_of(InvalidInput(f"The request is not well formed. {first}".strip(), errors=errors), request.scope)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    raised = cast(HTTPException, error)
    translated: FFError
    match raised.status_code, raised.__cause__:
        case _, FFError() as cause:
            translated = cause  # FastAPI wraps what reading the body raised, such as TooLarge
        case 404, _:
            translated = NotFound("There is nothing at this address.")
        case 405, _:
            translated = MethodNotAllowed()
        case 400, _:
            translated = InvalidInput("The body is not JSON in UTF-8.")
        case _:
            translated = UnsupportedRequest()
    return response_of(translated, request.scope, raised.headers)


async def _on_bad_text(request: Request, error: Exception) -> JSONResponse:
    log.info("http.bad_text", error=type(error).__name__)
    return response_of(InvalidInput(_BAD_TEXT), request.scope)


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    location: Sequence[Any] = item["loc"]
    if item["type"] == "json_invalid":
        return {"field": "body", "message": f"is not JSON: {item['ctx']['error']} at character {location[-1]}"}
    path = ".".join(str(part) for part in location[1:]) or str(location[0])
    # A name of an unknown field comes from outside, with any characters.
    field = path.encode("utf-8", "replace").decode()[:_FIELD_CHARS_MAX]
    return {"field": field, "message": str(item["msg"]).removeprefix("Value error, ")}

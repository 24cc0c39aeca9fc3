"""Forms as browsers and OAuth programs send them, bounded and without repetitions."""

from collections.abc import Iterable
from urllib.parse import parse_qsl

from fastapi import Request

from ff_cloud.authorization.errors import RequestRefused

FORM_BYTES_MAX = 16 * 1024
FIELDS_MAX = 20
FORM = "application/x-www-form-urlencoded"


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a body. Raises ``RequestRefused`` for another type, more than it may have, or a field sent twice."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise RequestRefused(f"Send the parameters as {FORM}.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            raise RequestRefused(f"The form is longer than {FORM_BYTES_MAX} bytes.")
    try:
        return _single(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError as error:
        raise RequestRefused from error


def query_of(request: Request) -> dict[str, str]:
    """The fields of a query. Raises ``RequestRefused`` for more than it may have, or a field sent twice."""
    items = request.query_params.multi_items()
    if len(items) > FIELDS_MAX:
        raise RequestRefused
    return _single(items)


def _single(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in items:
        if name in fields:
            raise RequestRefused("A parameter is repeated.")
        if "\0" in value:
            raise RequestRefused
        fields[name] = value
    return fields

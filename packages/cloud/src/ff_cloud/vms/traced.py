"""Spans around calls of daemons and of the engine. Put in place where traces are configured; elsewhere nothing of it runs."""

import functools
import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from ff_cloud.kit.correlation import outgoing_headers
from ff_cloud.kit.tracing import Tracing
from ff_cloud.vms.daemon_http import Answer, DaemonHttp

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class TracedDaemonHttp(DaemonHttp):
    """One span for each request, until its answer begins: what is streamed then may take hours."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self._tracing = tracing

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        silence_s_max: float,
        params: Mapping[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[Answer]:
        """See ``DaemonHttp``. The daemon is told the span as its parent."""
        parts = urlsplit(url)
        name = f"daemon {method} {_ID.sub('{id}', parts.path)}"
        facts = {"http.request.method": method, "server.address": parts.netloc}
        with ExitStack() as until_answered:
            span = until_answered.enter_context(self._tracing.span(name, kind="client", attributes=facts))
            told = {**headers, **outgoing_headers()}
            async with super().request(
                method, url, headers=told, silence_s_max=silence_s_max, params=params, content=content
            ) as answer:
                span.note({"http.response.status_code": answer.status})
                until_answered.close()
                yield answer


class _Traced:
    """Stands for ``real``; each of its coroutine methods is a span."""

    def __init__(self, real: Any, tracing: Tracing, prefix: str) -> None:
        self._real = real
        self._tracing = tracing
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        async def spanned(*args: Any, **kwargs: Any) -> Any:
            with self._tracing.span(f"{self._prefix} {name}", kind="client"):
                return await found(*args, **kwargs)

        # Found by itself from now on: the engine's methods don't change.
        setattr(self, name, spanned)
        return spanned


def traced(engine: T, tracing: Tracing, prefix: str = "docker") -> T:
    """``engine`` with a span around each of its calls; ``engine`` itself where nothing is traced."""
    return cast(T, _Traced(engine, tracing, prefix)) if tracing.on else engine

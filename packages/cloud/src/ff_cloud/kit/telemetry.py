"""What a process tells of itself: logs (one structured line per thing worth knowing, on standard error, without secrets), and
the bundle of what else it says.
"""

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ff_cloud.kit.heartbeats import Heartbeats
from ff_cloud.kit.metrics import Metrics
from ff_cloud.kit.readiness import Readiness
from ff_cloud.kit.tracing import UNTRACED, Tracing
from ff_core.world import World

_SECRET_WORDS = ("password", "secret", "token", "authorization", "api_key", "cookie", "credential")
_HARMLESS = frozenset({"tokens", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"})
_HIDDEN = "[hidden]"
_DEPTH_MAX = 6


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One per process, built in its composition root."""

    metrics: Metrics
    heartbeats: Heartbeats
    readiness: Readiness
    tracing: Tracing

    @classmethod
    def build(cls, world: World, tracing: Tracing = UNTRACED) -> Self:
        """With new metrics, at 0, and nothing to be ready for yet."""
        metrics = Metrics.build()
        return cls(metrics, Heartbeats(metrics.loops, world), Readiness(world), tracing)


def configure_logging(log_format: Literal["auto", "json", "console"] = "auto", level: int = logging.INFO) -> None:
    """Send our log lines and those of libraries to standard error. May be repeated; the last call counts."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        scrub,
    ]
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Our own middleware writes the line per request, with its id and without the query.
    logging.getLogger("uvicorn.access").disabled = True
    for chatty in ("uvicorn.error", "alembic", "httpx2", "opentelemetry"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def scrub(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide the values of keys that name secrets, at any depth up to six."""
    return {key: _scrubbed(key, value, 0) for key, value in event.items()}


def _scrubbed(key: str, value: Any, depth: int) -> Any:
    if _names_secret(key):
        return _HIDDEN
    if depth >= _DEPTH_MAX:
        return value
    if isinstance(value, Mapping):
        return {inner: _scrubbed(str(inner), item, depth + 1) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed("", item, depth + 1) for item in value]
    return value


def _names_secret(key: str) -> bool:
    name = key.lower().replace("-", "_")
    return name not in _HARMLESS and any(word in name for word in _SECRET_WORDS)

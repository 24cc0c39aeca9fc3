"""What the commands share: options, what they say, how they run."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ff_cloud.kit.telemetry import configure_logging
from ff_cloud.runtime import Say
from ff_cloud.settings import CloudSettings, load_settings

Host = Annotated[str | None, typer.Option(help="Address to listen on (FF_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 takes a free one (FF_PORT).")]
DataDir = Annotated[Path | None, typer.Option(help="Where the server keeps its data (FF_DATA_DIR).")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


say: Say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731


def settings_with(**overrides: Any) -> CloudSettings:
    """The settings, and the log set up as they say. Raises ``SettingsInvalid``."""
    settings = load_settings(**overrides)
    configure_logging(settings.log_format)
    return settings


def run(body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``body`` with an event that SIGINT or SIGTERM sets; a second signal ends the process at once."""

    async def main_task() -> None:
        stop = asyncio.Event()
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if stop.is_set() and task is not None:
                task.cancel()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        await body(stop)

    with suppress(asyncio.CancelledError):
        asyncio.run(main_task())


def painted(text: str, colour: str) -> str:
    """``text`` in a colour on a terminal that wants any (NO_COLOR), else as it is."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else typer.style(text, fg=colour)

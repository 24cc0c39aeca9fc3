"""``python -m ff_core.testing.model_api --port 8399``: prints its URL as the first line, serves until stopped."""

import argparse
import asyncio
from pathlib import Path

from ff_core.testing.model_api import ModelApi
from ff_core.testing.serve import until_signal


async def _serve(arguments: argparse.Namespace) -> None:
    where = {"host": arguments.host, "port": arguments.port}
    async with ModelApi(**where, tokens=arguments.token, log=arguments.log) as api:
        print(api.url, flush=True)  # noqa: T201  (whoever started us reads it)
        await until_signal()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m ff_core.testing.model_api")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--log", type=Path, help="append every request as a JSON line")
    parser.add_argument("--token", action="append", help="accepted credential (default: any); tests only")
    asyncio.run(_serve(parser.parse_args()))


main()

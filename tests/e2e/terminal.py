"""A person's terminal: the real ``ff`` with a home, a configuration and a desktop of its own."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ff_cloud.testing.server import program

LIMIT_S = 90.0


class Terminal:
    """Runs ``ff`` and ``git`` as somebody whose everything lies in ``home``."""

    def __init__(self, home: Path, more: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FF_CONFIG_DIR": str(home),
            "FF_DESKTOP_DIR": str(home / "desktop"),
            "NO_COLOR": "1",
            **(more or {}),
        }

    def readable_by_others(self) -> list[Path]:
        return [file for file in self.home.rglob("*") if file.is_file() and file.stat().st_mode & 0o077]

    async def start(self, *words: str, stdin: bytes = b"") -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            program("ff"),
            *words,
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    async def raw(self, *words: str, stdin: bytes = b"", code: int = 0, limit_s: float = LIMIT_S) -> bytes:
        """What it writes, byte for byte; it must end with ``code``."""
        process = await self.start(*words, stdin=stdin)
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
        assert process.returncode == code, f"ff {' '.join(words)} → {process.returncode}\n{out[-4000:]!r}\n{err.decode()}"
        return out if code == 0 else out + err

    async def ff(self, *words: str, stdin: bytes = b"", code: int = 0, limit_s: float = LIMIT_S) -> str:
        """The same as text."""
        return (await self.raw(*words, stdin=stdin, code=code, limit_s=limit_s)).decode()

    async def json(self, *words: str) -> Any:
        """The one JSON object it writes."""
        return json.loads(await self.ff(*words, "--json"))

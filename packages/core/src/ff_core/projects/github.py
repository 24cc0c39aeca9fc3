"""What the user's own ``gh`` can tell, if he has it and is logged in. Everything here works without it, with less."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from ff_core.errors import FFError
from ff_core.process import run
from ff_core.projects.prompt import Issue
from ff_core.world import World

LOGIN_TIMEOUT_S = 5.0
LOGIN_KEPT_S = 300.0
ISSUE_TIMEOUT_S = 15.0
OUTPUT_BYTES_MAX = 1 << 20

_LOG = logging.getLogger(__name__)


class GitHub:
    """Asks ``gh`` in the user's ``environment``."""

    def __init__(self, environment: Mapping[str, str], world: World) -> None:
        self._environment, self._world = environment, world
        self._login: tuple[float, str | None] | None = None

    async def login(self) -> str | None:
        """The user's name at GitHub; None when that can't be known. Asked for at most every few minutes."""
        now_s = self._world.now().timestamp()
        if self._login is None or now_s - self._login[0] > LOGIN_KEPT_S:
            told = await self._ask("api", "user", "--jq", ".login", timeout_s=LOGIN_TIMEOUT_S)
            self._login = (now_s, None if told is None else told.decode(errors="replace").strip() or None)
        return self._login[1]

    async def issue(self, url: str) -> Issue | None:
        """The issue; None when it can't be had."""
        told = await self._ask("issue", "view", url, "--json", "number,title,body", timeout_s=ISSUE_TIMEOUT_S)
        try:
            given = json.loads(told or b"")
            return Issue(int(given["number"]), str(given["title"]), str(given["body"]))
        except (ValueError, TypeError, LookupError):
            return None

    async def _ask(self, *words: str, timeout_s: float) -> bytes | None:
        try:
            done = await run(
                ["gh", *words],
                cwd=Path("/"),
                env={**self._environment, "GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "NO_COLOR": "1"},
                timeout_s=timeout_s,
                output_bytes_max=OUTPUT_BYTES_MAX,
            )
        except FFError as error:
            _LOG.info("gh %s: %s", words[0], error.detail)
            return None
        return done.stdout if done.exit_code == 0 and not done.truncated else None

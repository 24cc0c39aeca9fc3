"""Run git: safe settings, English words, no prompts, bounded."""

import os
from collections.abc import Mapping
from pathlib import Path

from ff_core.git.errors import explain
from ff_core.process import Completed, RunAs, clean_env, run

GIT_TIMEOUT_S = 60.0
OUTPUT_BYTES_MAX = 16 << 20


def git_env(protocols: tuple[str, ...]) -> dict[str, str]:
    """The environment git runs in; only these transport protocols may be used (never ``ext``, which runs commands)."""
    return clean_env(
        GIT_TERMINAL_PROMPT="0",  # a prompt would wait for ever
        GIT_ASKPASS="",
        SSH_ASKPASS="",
        GIT_ALLOW_PROTOCOL=":".join(protocols),
        GIT_OPTIONAL_LOCKS="0",  # looking must not disturb the agent's own git
        LC_ALL="C",  # errors are recognised by their English words
    )


class Git:
    """Git in one folder, as one user.

    System and user configuration count, as they do for a person: that is where certificates and identity are.
    ``config`` adds settings for these calls only. ``protocols`` are those that fetch and push may use.
    """

    def __init__(
        self,
        cwd: Path,
        *,
        run_as: RunAs | None = None,
        config: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = ("https",),
    ) -> None:
        self.cwd = cwd
        self._run_as = run_as
        self._settings = [word for name, value in (config or {}).items() for word in ("-c", f"{name}={value}")]
        self._protocols = protocols

    async def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        timeout_s: float = GIT_TIMEOUT_S,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> Completed:
        """Run ``git arguments…``; any exit code is an answer. Raises what :func:`ff_core.process.run` does."""
        return await run(
            ["git", *self._settings, *arguments],
            cwd=self.cwd,
            env=git_env(self._protocols),
            timeout_s=timeout_s,
            output_bytes_max=output_bytes_max,
            stdin=stdin,
            user=self._run_as,
        )

    async def text(self, *arguments: str, timeout_s: float = GIT_TIMEOUT_S) -> str:
        """Run git and return what it wrote, without the last line break; a failure raises the error it means."""
        done = await self.run(*arguments, timeout_s=timeout_s)
        if done.exit_code != 0:
            raise explain(done.exit_code, done.stderr.decode(errors="replace"))
        return os.fsdecode(done.stdout).removesuffix("\n")

    async def setting(self, name: str) -> str | None:
        """The value git uses for a setting, wherever it is written; None when nowhere."""
        done = await self.run("config", "--get", name)
        return os.fsdecode(done.stdout).removesuffix("\n") if done.exit_code == 0 else None

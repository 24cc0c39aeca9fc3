"""Run git: safe settings, English words, no prompts, bounded."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path

from ff_core.git.errors import explain
from ff_core.process import Completed, RunAs, clean_env, run

GIT_TIMEOUT_S = 60.0
OUTPUT_BYTES_MAX = 16 << 20
USERS_PROTOCOLS = ("https", "http", "ssh", "git", "file")
"""What fetch may use where the remotes are the user's own."""
OF_A_REPOSITORY = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)
"""Variables that point git at one repository (``git rev-parse --local-env-vars``): a hook of another one may have started us."""


def git_env(protocols: tuple[str, ...], users: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment git runs in; only these transport protocols may be used (never ``ext``, which runs commands).

    ``users``: the environment of the person whose own repositories these are, in place of a clean one: there are his SSH agent,
    his credential helpers and his proxies.
    """
    base = clean_env() if users is None else {name: value for name, value in users.items() if name not in OF_A_REPOSITORY}
    return base | {
        "GIT_TERMINAL_PROMPT": "0",  # a prompt would wait for ever
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": ":".join(protocols),
        "GIT_OPTIONAL_LOCKS": "0",  # looking must not disturb the agent's own git
        "LC_ALL": "C",  # errors are recognised by their English words
    }


class Git:
    """Git in one folder, as one user.

    System and user configuration count, as they do for a person: that is where certificates and identity are.
    ``config`` adds settings for these calls only. ``protocols`` are those that fetch and push may use. ``users``: see
    :func:`git_env`.
    """

    def __init__(
        self,
        cwd: Path,
        *,
        run_as: RunAs | None = None,
        config: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = ("https",),
        users: Mapping[str, str] | None = None,
    ) -> None:
        self.cwd = cwd
        self._run_as = run_as
        self._users = users
        self._settings = [word for name, value in (config or {}).items() for word in ("-c", f"{name}={value}")]
        self._protocols = protocols

    def at(self, cwd: Path) -> "Git":
        """The same in another folder."""
        other = copy.copy(self)
        other.cwd = cwd
        return other

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
            env=git_env(self._protocols, self._users),
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

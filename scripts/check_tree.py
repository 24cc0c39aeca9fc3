"""Checks on the files themselves: no module is too long, locks name no host, nothing names the place it was written at."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 500
BYTES_MAX = 2_000_000
GIT_TIMEOUT_S = 60
_NAMES_A_HOST = re.compile(r"://|^\s*--(?:extra-)?index-url|^\s*--find-links", re.MULTILINE)


def files() -> Iterator[Path]:
    """Every file that is, or could be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=GIT_TIMEOUT_S).stdout
    yield from (path for name in sorted(set(listed.decode().split("\0"))) if name and (path := ROOT / name).is_file())


def problems(path: Path, text: str, here: str) -> Iterator[str]:
    """What is wrong with one file; ``here`` is a path of this machine that nobody else has."""
    lines = text.count("\n")
    if path.suffix == ".py" and lines > LINES_MAX:
        yield f"has {lines} lines, at most {LINES_MAX} are allowed: it has more than one reason to change"
    if path.suffix == ".lock" and _NAMES_A_HOST.search(text):
        yield "names a host; remake it with scripts/lock.sh"
    if re.search(rf"(?<![\w./-]){re.escape(here)}(?![\w-])", text):
        yield f"names {here}, which is where this checkout happens to be"


def main() -> int:
    """Say what is wrong; 1 when anything is."""
    found = 0
    for path in files():
        data = path.read_bytes()
        if b"\0" in data or len(data) > BYTES_MAX:
            continue
        for problem in problems(path, data.decode(errors="replace"), str(ROOT)):
            print(f"{path.relative_to(ROOT)}: {problem}", file=sys.stderr)
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Repositories as people really leave them, and what a handoff must bring over byte for byte."""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

BIG_BYTES = 200 << 20
STATUS = ("git", "status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z")
STASHES = ("git", "stash", "list")
SUBMODULES = ("git", "submodule", "status")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"
LISTING = r"""
import hashlib, os, sys
rows = []
for top, folders, files in os.walk(b"."):
    folders[:] = [name for name in folders if name != b".git"]
    for name in [*files, *[one for one in folders if os.path.islink(os.path.join(top, one))]]:
        if name == b".git":
            continue
        path = os.path.join(top, name)
        if os.path.islink(path):
            rows.append((path, "link", os.readlink(path).hex()))
        else:
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            rows.append((path, "x" if os.stat(path).st_mode & 0o100 else "-", digest.hexdigest()))
    if not folders and not files:
        rows.append((top, "folder", ""))
for path, kind, content in sorted(rows):
    sys.stdout.write(f"{path.hex()} {kind} {content}\n")
"""
"""A program that lists a working tree: every file, link and empty folder, whatever its name."""


@dataclass(frozen=True)
class Seen:
    """A workspace as its user can see it."""

    status: bytes
    stashes: bytes
    submodules: bytes
    files: bytes


COMMANDS = {
    "status": STATUS,
    "stashes": STASHES,
    "submodules": SUBMODULES,
    "files": ("python3", "-c", LISTING),
}


def seen_here(folder: Path) -> Seen:
    """The workspace in a folder of this machine."""
    run = lambda argv: subprocess.run(argv, cwd=folder, capture_output=True, check=False, timeout=60).stdout  # noqa: E731
    return Seen(**{name: run(argv) for name, argv in COMMANDS.items()})


class Repo:
    """A working tree, and what one does to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *words: str | bytes, path: Path | None = None) -> str:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", "-c", "user.name=Me", "-c", "user.email=me@example.com", *words],
            cwd=path or self.path,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"git {words} → {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="replace").strip()

    def write(self, name: str | bytes, content: bytes | str, *, mode: int = 0o644) -> Path:
        path = self.path / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def commit(self, message: str, *names: str) -> None:
        self.git("add", "--", *(names or (".",)))
        self.git("commit", "-m", message)


def base_files() -> dict[str, str | bytes]:
    """What the remote has."""
    return {
        "README.md": "# nasty\n",
        "both.txt": "".join(f"line {n}\n" for n in range(40)),
        "deleted.txt": "delete me\n",
        "staged-deleted.txt": "delete me too\n",
        "renamed-from.txt": "".join(f"rename {n}\n" for n in range(30)),
        "tool.sh": "#!/bin/sh\necho tool\n",
        "src/app.py": "print('app')\n",
        ".gitignore": "node_modules/\n.env\nbuild/\n*.log\n",
        ".gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n",
        "art.psd": POINTER,
    }


def make_nasty(repo: Repo, *, big_bytes: int = BIG_BYTES) -> None:
    """Everything at once that an engineer can leave in a worktree on a Friday. ``big_bytes``: how large its largest file is."""
    repo.write("both.txt", "committed, not pushed\n" + "".join(f"line {n}\n" for n in range(40)))
    repo.commit("Unpushed one")
    repo.write("src/new.py", "print('new')\n")
    repo.commit("Unpushed two")
    # A stash with an index, and one on top of it.
    repo.write("README.md", "# stashed and staged\n")
    repo.git("add", "README.md")
    repo.write("src/app.py", "print('stashed, not staged')\n")
    repo.write("only-in-stash.txt", "untracked in the stash\n")
    repo.git("stash", "push", "--include-untracked", "-m", "with an index")
    repo.write("README.md", "# second stash\n")
    repo.git("stash")
    # Staged and unstaged edits of one file.
    text = (repo.path / "both.txt").read_text()
    repo.write("both.txt", text.replace("line 3\n", "line 3, staged\n"))
    repo.git("add", "both.txt")
    repo.write("both.txt", (repo.path / "both.txt").read_text().replace("line 30\n", "line 30, not staged\n"))
    # A rename half staged: the old name is gone from the index, the new one has further changes.
    repo.git("mv", "renamed-from.txt", "renamed-to.txt")
    repo.write("renamed-to.txt", (repo.path / "renamed-to.txt").read_text() + "and more\n")
    (repo.path / "deleted.txt").unlink()
    repo.git("rm", "--quiet", "staged-deleted.txt")
    (repo.path / "tool.sh").chmod(0o755)
    repo.write("intended.txt", "intended to be added\n")
    repo.git("add", "-N", "intended.txt")
    # Untracked things of every kind.
    repo.write("bin/run", "#!/bin/sh\n", mode=0o755)
    repo.write(b"caf\xe9-\xff.txt", "latin-1 name\n")
    repo.write("new\nline.txt", "a line feed in the name\n")
    repo.write(" spaces and \t tabs ", "x\n")
    repo.write("crlf.txt", "a\r\nb\r\n")
    (repo.path / "link").symlink_to("src/app.py")
    (repo.path / "dangling").symlink_to("/nowhere/at/all")
    (repo.path / "folder-link").symlink_to("src")
    (repo.path / "empty" / "folder").mkdir(parents=True)
    block = hashlib.shake_256(b"nasty").digest(1 << 20)
    with repo.write("big.bin", b"").open("wb") as big:
        for n in range(big_bytes >> 20):
            big.write(n.to_bytes(8, "big") + block[8:])
    # Ignored ones: of these only .env is to travel.
    repo.write(".env", "SECRET=of-the-user\n", mode=0o600)
    repo.write("node_modules/left/pad.js", "module.exports = 1\n")
    repo.write("build/out.log", "noise\n")

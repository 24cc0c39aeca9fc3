"""A dirty workspace goes to the cloud and comes back: how long, beside a plain clone of its repository in the same run.

Everything is what a user runs: ``ff serve`` on the desktop, ``ff-cloud serve`` with VMs in Docker, a git server in a process of
its own. The clone and the moves take turns. A send is measured from the order to the moment the workspace is READY in the cloud,
a pull to the moment it is at home; it begins when the server has stored its first copy of what arrived, which nobody waits for
who comes back later.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.budgets import HANDOFF
from bench.mirrors import generate
from bench.report import Row, publish

from ff_cloud.testing.server import own_environment, program, running_git_server, running_server, scratch_folder, standing_network
from ff_core.contract.local import BeginHandoff, LocalHandoff, LocalStatus
from ff_core.contract.places import Direction
from ff_core.contract.workspace import WorkspaceView
from ff_core.world import SystemWorld
from ff_desktop.settings import DesktopSettings
from ff_desktop.wiring import Desktop

WORLD = SystemWorld()
SIZES = {"50 MB": (1, 5), "1 GB": (16, 2)}
"""What ``bench.mirrors`` multiplies its repository by, and the rounds."""
EDITED, UNTRACKED, UNTRACKED_BYTES = 20, 5, 1_000_000
POLL_S = 0.02
LIMIT_S = 600.0


@dataclass
class Samples:
    """Of one size."""

    clone: list[float] = field(default_factory=list)
    send: list[float] = field(default_factory=list)
    pull: list[float] = field(default_factory=list)
    wire: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@contextmanager
def desktop(home: Path) -> Iterator[Desktop]:
    """A desktop with a home of its own, in this process; its ``ff serve`` is gone afterwards."""
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Bench\n\temail = bench@example.invalid\n")
    os.environ |= {
        "HOME": str(home),
        "FF_CONFIG_DIR": str(home / "config"),
        "FF_DESKTOP_DIR": str(home / "desktop"),
        "FF_KEYRING": "0",
    }
    made = Desktop(DesktopSettings())
    try:
        yield made
    finally:
        made.close()
        ff("serve", "--stop")


def ff(*words: str, stdin: str = "") -> str:
    """Run ``ff``."""
    done = subprocess.run([program("ff"), *words], input=stdin, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode not in {0, 5}:
        sys.exit(f"ff {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def dirty(worktree: Path, round_number: int) -> int:
    """Two commits nobody has pushed, edited files, untracked ones; how many bytes that is."""
    chance = random.Random(round_number)
    files = sorted(path for path in (worktree / "src").rglob("*.txt"))
    changed = 0
    for commit in range(2):
        path = files[commit]
        path.write_text(path.read_text() + f"round {round_number}\n")
        subprocess.run(["git", "-C", str(worktree), "commit", "-qam", f"Round {round_number}"], check=True)
        changed += path.stat().st_size
    for path in files[10 : 10 + EDITED]:
        path.write_text(path.read_text() + f"edited in round {round_number}\n")
        changed += path.stat().st_size
    for number in range(UNTRACKED):
        (worktree / f"untracked-{round_number}-{number}.bin").write_bytes(chance.randbytes(UNTRACKED_BYTES))
        changed += UNTRACKED_BYTES
    return changed


def cloned(url: str, folder: Path) -> float:
    """Seconds of a plain clone."""
    began = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", url, str(folder)], check=True)
    took = time.monotonic() - began
    shutil.rmtree(folder)
    return took


def moved(desk: Desktop, workspace: WorkspaceView, direction: Direction) -> tuple[float, LocalHandoff]:
    """Seconds of a move, and how it ended."""
    moves = desk.moves()
    wanted = BeginHandoff(id=WORLD.new_id(), direction=direction, workspace_id=workspace.id)
    began = time.monotonic()
    handoff = moves.begin(wanted)
    while handoff.status is LocalStatus.RUNNING and time.monotonic() - began < LIMIT_S:
        time.sleep(POLL_S)
        handoff = moves.get(handoff.id)
    took = time.monotonic() - began
    if handoff.status is not LocalStatus.DONE:
        sys.exit(f"{direction} ended {handoff.status} at {handoff.step}: {handoff.error}")
    return took, handoff


def until_saved(name: str) -> None:
    """Wait for the first checkpoint in the cloud."""
    deadline = time.monotonic() + LIMIT_S
    while json.loads(ff("status", name, "--json"))["workspace"]["last_saved_at"] is None:
        if time.monotonic() > deadline:
            sys.exit(f"{name} was not saved in {LIMIT_S:.0f} s")
        time.sleep(POLL_S)


class Peak:
    """The most memory that ``ff serve`` and what it started ever had, in megabytes; private pages and its part of shared ones."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.megabytes = 0.0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        from bench.host import family, sum_of  # noqa: PLC0415

        while not self._over.wait(0.05):
            self.megabytes = max(self.megabytes, sum_of(list(family(self._pid).values())).memory_bytes / 1e6)


def measure(desk: Desktop, folder: Path, url: str, rounds: int, size: str) -> Samples:
    """One repository."""
    project = folder / "laptop" / size.replace(" ", "")
    subprocess.run(["git", "clone", "--quiet", url, str(project)], check=True)
    ff("project", "add", str(project))
    samples = Samples()
    pid = int(json.loads(ff("serve", "--status", "--json"))["pid"])
    for number in range(rounds + 1):
        name = f"{project.name}-{number}"
        made = WorkspaceView.model_validate_json(ff("new", name, "--project", project.name, "--json"))
        assert made.path is not None
        changed = dirty(Path(made.path), number)
        clone_s = cloned(url, folder / "clone")
        with Peak(pid) as peak:
            send_s, sent = moved(desk, made, Direction.SEND)
            until_saved(name)
            pull_s, _ = moved(desk, made, Direction.PULL)
        ff("rm", name, "--yes", "--force")
        if number == 0:  # the first one fills the page cache, and makes the machine's mirror
            continue
        assert sent.receipt is not None
        samples.clone.append(clone_s)
        samples.send.append(send_s)
        samples.pull.append(pull_s)
        samples.wire.append(sent.receipt.bundle_bytes / 1e6)
        samples.changed.append(changed / 1e6)
        samples.memory.append(peak.megabytes)
    return samples


def rows(size: str, megabytes: float, samples: Samples) -> list[Row]:
    """What was measured of one repository."""
    ratio = statistics.median(samples.send) / statistics.median(samples.clone)
    limit = HANDOFF.ratio_max if megabytes < 200 else None
    return [
        Row(f"{size}: packs", "MB", [megabytes]),
        Row(f"{size}: plain clone", "s", samples.clone),
        Row(f"{size}: send, to READY in the cloud", "s", samples.send),
        Row(f"{size}: ratio of medians, send to clone", "x", [ratio], limit),
        Row(f"{size}: pull, to its folder at home", "s", samples.pull),
        Row(f"{size}: changed in the workspace", "MB", samples.changed),
        Row(f"{size}: on the wire", "MB", samples.wire),
        Row(f"{size}: peak memory of `ff serve` with what it starts", "MB", samples.memory),
    ]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m bench.handoff", description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    sizes = parser.parse_args().sizes
    folder = scratch_folder("ff-bench-")
    found: list[Row] = []
    try:
        with ExitStack() as stack:
            network = stack.enter_context(standing_network("bench"))
            git = stack.enter_context(running_git_server(folder, network.gateway, []))
            settings = {
                "FF_DEPLOYMENT": network.deployment,
                "FF_ALLOW_PLAIN_HTTP_REPOS": "1",
                "FF_POOL_SIZE": "1",
                "FF_VM_EGRESS_ALLOW": urlsplit(git.url).netloc,
                "FF_GIT_HOSTS": git.url,
            }
            server = stack.enter_context(running_server(folder, settings))
            os.environ |= own_environment({"FF_ALLOW_PLAIN_HTTP": "1"})
            desk = stack.enter_context(desktop(folder / "laptop"))
            login = ("login", "--server", server.url, "--signup", "--email", "bench@example.com", "--password-stdin")
            ff(*login, stdin=secrets.token_urlsafe(24) + "\n")
            for size in sizes:
                scale, rounds = SIZES[size]
                repository = folder / "repositories" / f"r{scale}.git"
                subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(repository)], check=True)
                megabytes = generate(repository, scale)
                os.sync()
                found += rows(size, megabytes, measure(desk, folder, f"{git.url}/r{scale}.git", rounds, size))
        return publish("handoff", found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

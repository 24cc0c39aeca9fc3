"""Which processes count as the user's background, by their table; and the kernel's own table, read for real."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_core.process import RunAs
from ff_core.workspaces.processes import Seen, background, count, look

DAEMON, DEV = 7, 1000
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
UID = 61_000 + os.getpid() % 4_000
"""A user nobody else on this machine is."""


def process(pid: int, *, parent: int = 1, session: int | None = None, uid: int = DEV, zombie: bool = False) -> Seen:
    return Seen(pid, parent, pid if session is None else session, uid, zombie)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([process(1, parent=0, uid=0), process(DAEMON, uid=0)], 0),
        # A command and what it started in its session: somebody waits for it.
        ([process(20, parent=DAEMON), process(21, parent=20, session=20)], 0),
        # It ended by itself, and what it left lives on.
        ([process(21, session=20)], 1),
        # The same a moment before its end was noticed.
        ([process(20, parent=DAEMON, zombie=True), process(21, session=20)], 1),
        # What began a session of its own is on its own, whatever its parent does.
        ([process(20, parent=DAEMON), process(22, parent=20), process(23, parent=22, session=22)], 2),
        # Others' processes, and those that are dead, don't count.
        ([process(30, uid=0), process(31, uid=1001), process(32, zombie=True)], 0),
    ],
)
def test_background_is_what_nobody_waits_for(table: list[Seen], expected: int) -> None:
    assert count(table, uid=DEV, ours=DAEMON) == expected


@given(st.lists(st.builds(Seen, *[st.integers(1, 9)] * 3, st.sampled_from([0, DEV]), st.booleans()), max_size=9))
def test_however_the_table_looks_only_living_ones_of_the_user_count_and_order_does_not(table: list[Seen]) -> None:
    found = count(table, uid=DEV, ours=DAEMON)
    assert 0 <= found <= sum(seen.uid == DEV and not seen.zombie for seen in table)
    assert count(reversed(table), uid=DEV, ours=DAEMON) == found


def test_the_kernels_table_is_read_whatever_a_process_calls_itself(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 1 ("
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as child:
        try:
            mine = {seen.pid: seen for seen in look()}
            assert mine[child.pid] == Seen(child.pid, os.getpid(), child.pid, os.getuid(), zombie=False)
            assert mine[os.getpid()].session == os.getsid(0)
        finally:
            child.kill()


def test_a_table_that_can_not_be_read_whole_gives_what_it_has(tmp_path: Path) -> None:
    for pid, stat, status in ((5, "5 (a b) S 1 5 5 0", "Name:\ta\nUid:\t1000\t1000\t1000\t1000\n"), (6, "6 (x", "Uid:\t1\n")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(stat)
        (tmp_path / str(pid) / "status").write_text(status)
    (tmp_path / "7").mkdir()
    (tmp_path / "uptime").write_text("1 1")
    assert list(look(tmp_path)) == [Seen(5, 1, 5, 1000, zombie=False)]


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[str]]:
    """As the daemon starts commands: a session of its own, the user's id."""
    folder = tempfile.mkdtemp()  # pytest's own folders can't be entered by another user
    os.chown(folder, UID, UID)
    with subprocess.Popen(
        ["sh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
        user=UID,
        extra_groups=[],
    ) as process:
        yield process
        process.kill()
    for seen in look():
        if seen.uid == UID:
            os.kill(seen.pid, signal.SIGKILL)
    shutil.rmtree(folder)


def tell(shell: subprocess.Popen[str], command: str) -> str:
    assert shell.stdin
    assert shell.stdout
    shell.stdin.write(f"{command}\necho done\n")
    shell.stdin.flush()
    return shell.stdout.readline()


@AS_ROOT
def test_real_ones_before_and_after_the_end_of_what_started_them(shell: subprocess.Popen[str], tmp_path: Path) -> None:
    user = RunAs(UID, UID, tmp_path)
    tell(shell, "sleep 300 &")
    assert background(user) == 0
    tell(shell, "setsid sh -c 'echo > began; exec sleep 300' &\nwhile ! test -e began; do sleep 0.01; done")
    assert background(user) == 1
    assert shell.stdin
    shell.stdin.close()
    shell.wait(timeout=10)
    assert background(user) == 2
    assert background(None) == 0

"""Programs are run with what they are given, within their limits, and leave nothing behind."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from ff_core.errors import InvalidInput
from ff_core.process import FolderMissing, ProgramMissing, ProgramTimedOut, RunAs, clean_env, run, stream

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def until_dead(pid: int) -> None:
    await until(lambda: not alive(pid))


async def sh(tmp_path: Path, script: str, **more):
    limits = {"cwd": tmp_path, "env": clean_env(), "timeout_s": 20, "output_bytes_max": 1 << 20} | more
    return await run(["sh", "-c", script], **limits)


async def test_output_and_exit_code(tmp_path):
    done = await sh(tmp_path, "cat; echo to-err >&2; pwd; exit 3", stdin=b"from stdin\n")
    assert done.exit_code == 3
    assert done.stdout == f"from stdin\n{tmp_path}\n".encode()
    assert done.stderr == b"to-err\n"
    assert not done.truncated


async def test_without_stdin_a_reader_sees_the_end_at_once(tmp_path):
    assert (await sh(tmp_path, "cat; echo end")).stdout == b"end\n"


async def test_a_signal_shows_in_the_exit_code(tmp_path):
    assert (await sh(tmp_path, "kill -9 $$")).exit_code == -9


async def test_stdin_that_nobody_reads_is_no_error(tmp_path):
    assert (await sh(tmp_path, "exit 0", stdin=b"x" * 1_000_000)).exit_code == 0


async def test_the_environment_is_only_what_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("FF_TEST_SECRET", "do not inherit")
    done = await sh(tmp_path, "env", env=clean_env(MINE="yes"))
    assert b"MINE=yes" in done.stdout
    assert b"FF_TEST_SECRET" not in done.stdout
    assert b"PATH=" in done.stdout


async def test_output_is_bounded_and_the_program_goes_on(tmp_path):
    done = await sh(tmp_path, "head -c 5000000 /dev/zero; touch finished", output_bytes_max=1000)
    assert len(done.stdout) == 1000
    assert done.truncated
    assert (tmp_path / "finished").exists()


async def test_all_output_of_a_big_program_arrives(tmp_path):
    done = await sh(tmp_path, "head -c 9000000 /dev/zero", output_bytes_max=10_000_000)
    assert len(done.stdout) == 9_000_000
    assert not done.truncated


async def test_a_slow_reader_slows_the_program_and_loses_nothing(tmp_path):
    total = 0
    async with stream(
        ["head", "-c", "6000000", "/dev/zero"],
        cwd=tmp_path,
        env=clean_env(),
        timeout_s=20,
        output_bytes_max=10_000_000,
    ) as running:
        with pytest.raises(TimeoutError):  # it can't end: nobody reads
            await asyncio.wait_for(running._exited.wait(), 0.3)
        async for _, chunk in running:
            total += len(chunk)
    assert total == 6_000_000
    assert running.exit_code == 0


async def test_chunks_arrive_while_the_program_runs(tmp_path):
    script = "echo one; while [ ! -e go ]; do :; done; echo two >&2"
    async with stream(["sh", "-c", script], cwd=tmp_path, env=clean_env(), timeout_s=20, output_bytes_max=1000) as running:
        seen = []
        async for item in running:
            seen.append(item)
            (tmp_path / "go").touch()
    assert seen == [("stdout", b"one\n"), ("stderr", b"two\n")]


async def test_a_time_out_ends_the_whole_group(tmp_path):
    with pytest.raises(ProgramTimedOut, match=r"0\.3 s"):
        await sh(tmp_path, "sleep 300 & echo $! > child; wait", timeout_s=0.3)
    await until_dead(int((tmp_path / "child").read_text()))


async def test_a_program_that_ignores_sigterm_is_killed(tmp_path):
    with pytest.raises(ProgramTimedOut):
        await sh(tmp_path, "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done", timeout_s=0.3)
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_cancelling_kills_the_group(tmp_path):
    task = asyncio.create_task(sh(tmp_path, "sleep 300 & echo $! > child; wait"))
    child = tmp_path / "child"
    await until(lambda: child.exists() and child.read_text().endswith("\n"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_dead(int((tmp_path / "child").read_text()))


async def test_leaving_early_kills(tmp_path):
    async with stream(["sleep", "300"], cwd=tmp_path, env=clean_env(), timeout_s=400, output_bytes_max=10) as running:
        pid = running._pid
    assert not alive(pid)
    assert running.exit_code == -15


@pytest.mark.parametrize("kill", [True, False])
async def test_leftovers_are_killed_where_asked(tmp_path, kill):
    script = "sleep 300 & echo $! > child; echo done"
    async with stream(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=clean_env(),
        timeout_s=20,
        output_bytes_max=1000,
        kill_leftovers=kill,
    ) as running:
        said = b"".join([chunk async for _, chunk in running])
    assert (said, running.exit_code) == (b"done\n", 0)
    child = int((tmp_path / "child").read_text())
    if kill:
        await until_dead(child)
    else:
        assert alive(child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)


async def test_a_leftover_that_talks_for_ever_does_not_hold_the_stream(tmp_path):
    async with stream(
        ["sh", "-c", "while :; do echo x; sleep 0.05; done & echo $! > child"],
        cwd=tmp_path,
        env=clean_env(),
        timeout_s=1,
        output_bytes_max=1000,
        kill_leftovers=False,
    ) as running:
        async with asyncio.timeout(10):
            async for _ in running:
                pass
    assert running.exit_code == 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 9)


async def test_what_can_not_be_started(tmp_path):
    with pytest.raises(ProgramMissing, match="no-such-program"):
        await run(["no-such-program"], cwd=tmp_path, env=clean_env(), timeout_s=1, output_bytes_max=1)
    with pytest.raises(FolderMissing, match="gone"):
        await sh(tmp_path / "gone", "true")
    with pytest.raises(InvalidInput):
        await sh(tmp_path, "echo \0")


@AS_ROOT
async def test_another_user_has_its_own_home_and_no_groups(tmp_path):
    user = RunAs(uid=12345, gid=12346, home=Path("/somewhere"))
    done = await sh(Path("/"), 'id -u; id -g; id -G; echo "$HOME"', user=user)
    assert done.stdout.decode().split() == ["12345", "12346", "12346", "/somewhere"]
    with pytest.raises(ProgramTimedOut):
        await sh(Path("/"), "sleep 300", user=user, timeout_s=0.2)

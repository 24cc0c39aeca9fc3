"""What is refused; the process that packs and unpacks, and what is left when it is killed."""

import json
import os
import signal
import subprocess
import sys
from uuid import UUID

import pytest
from handoff_moves import begin, code_of
from handoff_trees import Ground, ignored

from ff_core.errors import FFError
from ff_core.git.exact import read
from ff_core.git.exact.run import find
from ff_core.handoff import child
from ff_core.handoff.errors import BundleBroken, ChangedWhilePacking, HandoffTimedOut, UnpackedAlready
from ff_core.handoff.orders import CONVERSATIONS, SPOOL, Conversation, Pack, Settle, Survey
from ff_core.handoff.pack import pack

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
SESSION = UUID("01890000-0000-7000-8000-000000000001")
PROVIDER = "3f2b8c1e-0000-4000-8000-00000000abcd"
TIMEOUT_S = 60.0
PROGRAM = (sys.executable, "-I", "-m", "ff_core.handoff")


@pytest.fixture
def ground(tmp_path, monkeypatch) -> Ground:
    made = Ground(tmp_path / "ground")
    monkeypatch.setenv("HOME", str(made.home))
    return made


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        ("git merge -q side", "unmerged_index"),
        ("git merge -q -s ours --no-commit --no-ff side", "operation_in_progress"),
        ("git rebase -q side; git checkout -q --ours a; git add a", "operation_in_progress"),
        ("git cherry-pick side; git add a", "operation_in_progress"),
        ("git revert --no-commit HEAD", "operation_in_progress"),
        ("git bisect start", "operation_in_progress"),
        ("touch .git/index.lock", "index_locked"),
        ("printf 'a filter=x\\n' > .gitattributes; git config filter.x.clean cat", "filter_driver_missing"),
        ("rm a; mkfifo a", "tracked_file_unreadable"),
        ("git symbolic-ref HEAD refs/other/x", "repository_unsupported"),
    ],
)
def test_refusals(ground, prepare: str, code: str):
    begin(ground)
    ground.git("checkout", "-q", "-b", "side", "HEAD~1")
    (ground.ws / "a").write_text("side\n")
    ground.git("commit", "-q", "-am", "side")
    ground.git("checkout", "-q", "main")
    env = os.environ | {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["sh", "-c", prepare], cwd=ground.ws, env=env, capture_output=True, check=False)
    assert code_of(ground) == code
    assert not (ground.root / "bundle").exists()


def test_a_base_that_lacks_what_was_promised(ground):
    begin(ground)
    packed = ground.pack(have=ground.have())
    other = ground.root / "other"
    ground.git("init", "-q", "-b", "main", str(other), cwd=ground.root)
    for base in (other, None):
        with pytest.raises(FFError) as caught:
            ground.unpack(packed, "into", base=base)
        assert caught.value.code == "base_missing"
        assert sorted(path.name for path in ground.root.iterdir() if path.name.startswith("into")) == []


def test_what_is_there_is_not_written_over(ground):
    begin(ground)
    packed = ground.pack(whole=True)
    (ground.root / "into").mkdir()
    with pytest.raises(UnpackedAlready):
        ground.unpack(packed, "into")
    (ground.root / "into").rmdir()
    (ground.root / "into.partial" / "old").mkdir(parents=True)
    ground.unpack(packed, "into")
    assert not (ground.root / "into.partial").exists()


def test_the_base_is_not_needed_afterwards_and_not_changed(ground):
    begin(ground)
    base = ground.clone("base")
    ground.git("gc", "-q", cwd=base)
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in base.rglob("*"))
    ground.unpack(ground.pack(have=ground.have()), "into", base=base)
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in base.rglob("*")) == before
    subprocess.run(["rm", "-rf", str(base)], check=True)
    there = ground.unpacked("into")
    assert not (there / ".git" / "objects" / "info" / "alternates").exists()
    ground.git("fsck", "--full", cwd=there)
    (there / "a").write_text("goes on\n")
    ground.git("commit", "-q", "-am", "goes on", cwd=there)
    ground.git("push", "-q", "origin", "HEAD:goes-on", cwd=there)


def test_a_workspace_that_does_not_hold_still(ground):
    begin(ground)
    (ground.ws / "log").write_text("")

    def change(progress) -> None:
        if progress.step == "checking":
            with (ground.ws / "log").open("a") as file:
                file.write("more\n")

    order = Pack(
        repository=ground.ws, config_dir=ground.home, spool=ground.root / "spool", bundle=ground.root / "bundle", whole=True
    )
    with pytest.raises(ChangedWhilePacking):
        pack(order, change)
    assert not (ground.root / "bundle").exists()
    times = iter([change])
    packed = pack(order, lambda progress: next(times, ignored)(progress) if progress.step == "checking" else None)
    ground.unpack(packed, "into")
    assert (ground.unpacked("into") / "log").read_text().count("more") >= 1


def test_an_editor_that_looks_at_the_status_meanwhile_does_no_harm(ground):
    begin(ground)
    os.utime(ground.ws / "a", (1, 1))

    def status(progress) -> None:
        if progress.step == "checking":
            assert ground.git("status", "--porcelain") == b""  # and writes the index

    order = Pack(
        repository=ground.ws, config_dir=ground.home, spool=ground.root / "spool", bundle=ground.root / "bundle", whole=True
    )
    tries = []
    pack(order, lambda progress: tries.append(progress.step) or status(progress))
    assert tries.count("checking") == 1


def test_conversations_and_the_spool(ground):
    begin(ground)
    config, name = ground.home / ".claude", "-old-place"
    folder = config / "projects" / name
    (folder / PROVIDER / "tool-results").mkdir(parents=True)
    (folder / f"{PROVIDER}.jsonl").write_text(json.dumps({"output": str(folder / PROVIDER / "tool-results" / "x.txt")}) + "\n")
    (folder / PROVIDER / "tool-results" / "x.txt").write_text("large")
    (ground.root / "spool" / "journal.jsonl").write_text("{}\n")
    talks = (
        Conversation(session_id=SESSION, provider_session_id=PROVIDER),
        Conversation(session_id=UUID(int=2), provider_session_id=str(UUID(int=3))),
    )
    packed = ground.pack(whole=True, conversations=talks)
    assert [(each.session_id, each.files) for each in packed.fingerprint.conversations] == [(SESSION, 2)]
    ground.unpack(packed, "into")
    into = ground.root / "into"
    assert sorted(path.name for path in (into / SPOOL).iterdir()) == ["journal.jsonl", "records.json"]
    assert (into / CONVERSATIONS / str(SESSION) / PROVIDER / "tool-results" / "x.txt").read_text() == "large"
    assert sorted(path.name for path in into.iterdir()) == ["conversations", "repository", "spool"]


async def test_the_process(ground):
    begin(ground)
    (ground.ws / "new").write_text("x" * 100)
    folder = ground.home / ".claude" / "projects" / "-x"
    folder.mkdir(parents=True)
    (folder / f"{PROVIDER}.jsonl").write_text("{}\n")
    talks = (Conversation(session_id=SESSION, provider_session_id=PROVIDER),)
    wanted = {"repository": ground.ws, "config_dir": ground.home / ".claude", "conversations": talks, "have": ground.have()}
    steps = []
    seen = await child.survey(Survey(**wanted), run_as=None, timeout_s=TIMEOUT_S)
    assert (seen.contents.commits, seen.contents.files, seen.refusals) == (1, 1, ())
    order = Pack(**wanted, spool=ground.root / "spool", bundle=ground.root / "bundle")
    packed = await child.pack(order, run_as=None, timeout_s=TIMEOUT_S, progress=lambda told: steps.append(told.step))
    unpacking = ground.unpacking(packed, "into", base=ground.clone("base"))
    arrived = await child.unpack(unpacking, run_as=None, timeout_s=TIMEOUT_S, progress=lambda told: steps.append(told.step))
    assert arrived.fingerprint == packed.fingerprint
    assert list(dict.fromkeys(steps)) == ["packing", "checking", "unpacking", "comparing"]
    settle = Settle(
        conversations=ground.root / "into" / CONVERSATIONS,
        sessions=talks,
        config_dir=ground.root / "elsewhere" / ".claude",
        cwd=ground.root / "elsewhere" / "repo",
    )
    for _ in range(2):
        assert (await child.settle(settle, run_as=None, timeout_s=TIMEOUT_S)).conversations == arrived.fingerprint.conversations
    (ground.root / "bundle").write_bytes(b"x" * packed.size)
    with pytest.raises(BundleBroken):
        await child.unpack(ground.unpacking(packed, "again"), run_as=None, timeout_s=TIMEOUT_S)
    (ground.ws / ".git" / "index.lock").touch()
    with pytest.raises(FFError, match=r"index\.lock") as caught:
        await child.pack(order, run_as=None, timeout_s=TIMEOUT_S)
    assert (caught.value.code, caught.value.status) == ("index_locked", 409)
    with pytest.raises(HandoffTimedOut):
        await child.pack(order, run_as=None, timeout_s=0.01)


def test_killed_while_it_unpacks_nothing_is_left_but_what_the_next_one_removes(ground):
    begin(ground)
    (ground.ws / "large").write_bytes(os.urandom(30_000_000))
    packed = ground.pack(whole=True)
    order = ground.unpacking(packed, "into")
    pipe = subprocess.PIPE
    process = subprocess.Popen([*PROGRAM, str(os.getpid())], stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(order.model_dump_json().encode())
    process.stdin.close()
    while b"unpacking" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert process.stdout is not None
    assert process.stdout.read() == b""
    process.stdout.close()
    process.stderr.close()
    assert not (ground.root / "into").exists()
    ground.unpack(packed, "into")
    assert not (ground.root / "into.partial").exists()
    assert (ground.unpacked("into") / "large").stat().st_size == 30_000_000


def test_the_process_ends_with_whoever_started_it(ground):
    begin(ground)
    (ground.ws / "large").write_bytes(os.urandom(60_000_000))
    packed = ground.pack(whole=True)
    order, said = ground.root / "order", ground.root / "said"
    order.write_text(ground.unpacking(packed, "into").model_dump_json())
    script = f"{' '.join(PROGRAM)} $$ <{order} >{said}.out 2>{said} & echo $!; wait"
    starter = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    process = int(starter.stdout.readline())
    while not (said.exists() and b"unpacking" in said.read_bytes()):
        os.kill(process, 0)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    ground.unpack(packed, "into")  # waits until it is alone
    assert (ground.root / "said.out").read_bytes() == b""
    assert (ground.unpacked("into") / "large").stat().st_size == 60_000_000


def test_the_process_does_nothing_when_whoever_started_it_is_dead_before_it_looks(ground):
    begin(ground)
    order = ground.unpacking(ground.pack(), "into")
    starter = subprocess.Popen(["true"])
    starter.wait()
    done = subprocess.run(
        [*PROGRAM, str(starter.pid)], input=order.model_dump_json().encode(), capture_output=True, check=False, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
    assert not (ground.root / "into").exists()


def test_refs_are_read_as_they_are(ground):
    begin(ground)
    repository = find(ground.ws)
    here = read.heading(repository, read.settings(repository))
    assert (here.branch, here.upstream) == (b"refs/heads/main", b"refs/remotes/origin/main")

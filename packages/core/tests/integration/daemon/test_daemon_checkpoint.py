"""Checkpoints through the door of a real daemon: taken beside work, put back into another one."""

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from ff_core.contract.checkpoint import MEDIA_TYPE, TAIL_BYTES, Packed, Restored, read_trailer
from ff_core.contract.events import Event, EventBody, MessageQueued, MessageUser, Notice, SessionStarted

WORKSPACE = "00000000-0000-7000-8000-0000000000aa"
SESSION = "00000000-0000-7000-8000-0000000000cc"
LOST_SESSION = "00000000-0000-7000-8000-0000000000dd"


def take(daemon, number: int, base: Packed | None = None) -> tuple[Packed, bytes] | None:
    body = {"number": number, "base": base and base.ref.model_dump()}
    response = daemon.http.post("/v1/checkpoint", json=body)
    if response.status_code == 204:
        return None
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    packed = read_trailer(response.content[-TAIL_BYTES:])
    assert packed is not None
    assert packed.number == number
    return packed, response.content


def put(daemon, packed: Packed, *archives: bytes, events: bytes = b""):
    params = {"workspace_id": WORKSPACE, "number": packed.number, "tree_sha256": packed.tree_sha256}
    return daemon.http.put("/v1/restore", params=params, content=events + b"\n" + b"".join(archives))


def event(seq: int, body: EventBody, session: str | None = None) -> bytes:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = Event(workspace_id=UUID(WORKSPACE), seq=seq, at=at, session_id=session and UUID(session), body=body)
    return made.model_dump_json().encode() + b"\n"


def sh(daemon, script: str) -> str:
    frames = daemon.exec("sh", "-c", script)
    assert frames[-1].exit_code == 0, frames
    return b"".join(frame.data for frame in frames[:-1]).decode()


def journal(daemon) -> list[dict]:
    seq = daemon.http.get("/v1/health").json()["journal_seq"]
    return daemon.events(0, seq)


WORK = """
set -e
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first
printf 'node_modules/\\n.env\\n' > .gitignore
mkdir node_modules dir; echo big > node_modules/x
echo secret > .env; echo staged > staged; git add staged; echo more >> staged; echo untracked > dir/new
git -c user.name=a -c user.email=a@b stash push -q -- staged
echo again > staged; git add staged
mkdir -p ~/.cache ~/.claude/projects/p; echo x > ~/.cache/y; echo '{}' > ~/.claude/projects/p/s.jsonl
git config --global user.name dev
"""


@pytest.fixture
def two(spawn):
    """A bound daemon with work in it, and an empty one."""
    roots = []
    for name in ("old", "new"):
        root = Path(f"/tmp/ff-checkpoint-{os.getpid()}-{name}")
        subprocess.run(["rm", "-rf", root], check=True)
        root.mkdir(mode=0o755)
        roots.append(root)
    old, new = (spawn(root).start() for root in roots)
    old.bind()
    sh(old, WORK)
    yield old, new
    subprocess.run(["rm", "-rf", *roots], check=True)


def look(daemon) -> str:
    said = sh(
        daemon,
        "git status --porcelain=v2 --branch; git stash list; git log --oneline; git diff --cached; cat dir/new .env;"
        " cat ~/.claude/projects/p/s.jsonl; git config user.name; stat -c '%a %U %n' . .git dir ~ ~/.claude",
    )
    return said.replace(str(daemon.root), "")


def test_another_machine_goes_on_where_the_lost_one_was_saved(two):
    old, new = two
    packed, full = take(old, 1)
    assert {(each.path, each.reason) for each in packed.left_out} >= {("repo/node_modules", "ignored"), ("home/.cache", "cache")}
    assert packed.settled
    assert take(old, 2, packed) is None
    sh(old, "echo changed > dir/new")
    newer, delta = take(old, 3, packed)
    assert newer.base == packed.ref
    assert len(delta) < len(full)
    expected = look(old)
    old.end(signal.SIGKILL)

    seq = newer.journal_seq
    response = put(new, newer, full, delta, events=event(seq + 1, Notice(name="n", message="seen by somebody")))
    assert response.status_code == 200, response.text
    restored = Restored.model_validate_json(response.content)
    assert (restored.number, restored.name, restored.lost_events, restored.seq) == (3, "mine", 1, seq + 2)
    assert put(new, newer, full, delta).json() == response.json()  # repeatable
    new.bind()
    assert look(new) == expected
    assert not (new.root / "repo" / "node_modules").exists()

    told = journal(new)
    assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
    assert told[seq]["body"] == {"kind": "notice", "name": "n", "message": "seen by somebody"}
    said = told[seq + 1]["body"]
    assert (said["kind"], said["checkpoint"], said["saved_seq"], said["lost_events"]) == ("workspace.restored", 3, seq, 1)
    assert said["left_out_count"] == newer.left_out_count
    # The next checkpoint builds on the one that was restored.
    after, small = take(new, 4, newer)
    assert after.base == newer.ref
    assert len(small) < len(full)


def test_what_came_after_the_checkpoint_is_ended_and_does_not_run_again(two):
    old, new = two
    session = old.http.post("/v1/sessions", json={"id": SESSION, "name": "s", "permissions": "YOLO"})
    assert session.status_code == 201, session.text
    packed, full = take(old, 1)
    seq = packed.journal_seq
    sent, queued = (UUID(int=n) for n in (1, 2))
    newer = [
        event(seq + 1, SessionStarted(name="lost", model=None, permissions="YOLO"), LOST_SESSION),
        event(seq + 2, MessageQueued(message_id=sent, text="do it"), SESSION),
        event(seq + 3, MessageUser(message_id=sent, text="do it"), SESSION),
        event(seq + 4, MessageQueued(message_id=queued, text="then that"), SESSION),
    ]
    assert put(new, packed, full, events=b"".join(newer)).status_code == 200
    new.bind()
    ends = [(each["session_id"], each["body"]) for each in journal(new)[seq + 5 :]]
    kinds = [(session, body["kind"]) for session, body in ends]
    assert (SESSION, "turn.finished") in kinds
    assert (SESSION, "message.cancelled") in kinds
    assert (LOST_SESSION, "session.status") in kinds
    (turn,) = [body for _, body in ends if body["kind"] == "turn.finished"]
    assert (turn["outcome"], turn["message_ids"], turn["error"]["code"]) == ("interrupted", [str(sent)], "lost_with_vm")
    assert [each["id"] for each in new.http.get("/v1/sessions").json()] == [SESSION]


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9, 1.0])
def test_a_half_archive_leaves_an_empty_machine(two, cut):
    old, new = two
    packed, full = take(old, 1)
    inner = len(full) - len(packed.model_dump_json()) - 12  # without the trailer, which the restore does not need
    response = put(new, packed, full[: int((inner - 12) * cut)])
    assert response.status_code == 422, response.text
    assert response.json()["code"] == "checkpoint_broken"
    assert not (new.root / ".ff" / "restore").exists()
    assert list((new.root / "repo").iterdir()) == []
    assert new.http.get("/v1/health").json()["workspace_id"] is None
    assert put(new, packed, full).status_code == 200


def test_events_must_go_on_from_the_checkpoints_own(two):
    old, new = two
    packed, full = take(old, 1)
    response = put(new, packed, full, events=event(packed.journal_seq + 2, Notice(name="n", message="m")))
    assert (response.status_code, response.json()["code"]) == (422, "checkpoint_broken")
    assert new.http.get("/v1/health").json()["workspace_id"] is None


def test_a_machine_that_holds_something_is_left_alone(two):
    old, new = two
    packed, full = take(old, 1)
    new.bind()
    response = put(new, packed, full)
    assert (response.status_code, response.json()["code"]) == (409, "restore_not_empty")
    assert put(old, packed, full).json()["code"] == "restore_not_empty"


def test_a_restart_finishes_a_restore_that_was_whole(two, spawn):
    """The machine dies between the marker and the last move."""
    old, new = two
    packed, full = take(old, 1)
    expected = look(old)
    new.end()
    script = f"""
import asyncio, io, os, sys
from pathlib import Path
from ff_core.checkpoint.restore import Restoring
from ff_core.contract.checkpoint import RestoreRequest
from ff_core.settings import CoreSettings, make_folders
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.world import SystemWorld

settings = CoreSettings.from_env(os.environ)
make_folders(settings)
store = Store.open(settings.database)
store.load = lambda path: os._exit(9)  # repo and home are moved by then
restoring = Restoring(settings=settings, store=store, journal=Journal(store, SystemWorld()))
async def body():
    yield b"\\n" + sys.stdin.buffer.read()
wanted = RestoreRequest(workspace_id="{WORKSPACE}", number={packed.number}, tree_sha256="{packed.tree_sha256}")
asyncio.run(restoring.restore(wanted, body()))
"""
    import sys  # noqa: PLC0415

    done = subprocess.run([sys.executable, "-c", script], input=full, env={**os.environ, "FF_ROOT": str(new.root)}, check=False)
    assert done.returncode == 9
    assert (new.root / ".ff" / "restore" / "READY").exists()
    again = spawn(new.root).start()
    assert not (new.root / ".ff" / "restore").exists()
    assert again.http.get("/v1/health").json()["workspace_id"] == WORKSPACE
    again.bind()
    assert look(again) == expected
    assert put(again, packed, full).status_code == 409  # bound by now


def test_one_at_a_time_and_the_door_stays_open(two):
    old, _ = two
    sh(old, "head -c 60000000 /dev/urandom > large")
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(old.http.post, "/v1/checkpoint", json={"number": n}) for n in (1, 2)]
        assert old.http.get("/v1/health").status_code == 200
        found = sorted((answer.result() for answer in answers), key=lambda response: response.status_code)
    assert [response.status_code for response in found] == [200, 409]
    assert found[1].json()["code"] == "checkpoint_running"
    assert read_trailer(found[0].content[-TAIL_BYTES:]) is not None


def test_a_reader_that_goes_away_stops_it(two, eventually):
    old, _ = two
    sh(old, "head -c 60000000 /dev/urandom > large")
    with old.http.stream("POST", "/v1/checkpoint", json={"number": 1}) as response:
        next(response.iter_bytes())
    assert eventually(lambda: take_or_busy(old))


def take_or_busy(daemon) -> bool:
    response = daemon.http.post("/v1/checkpoint", json={"number": 2})
    assert response.status_code in {200, 409}, response.text
    return response.status_code == 200


def test_nothing_to_save_before_there_is_a_checkout(spawn, root):
    daemon = spawn(root).start()
    assert daemon.http.post("/v1/checkpoint", json={"number": 1}).json()["code"] == "not_bound"
    assert daemon.http.post("/v1/bind", json=json.loads(BIND)).status_code == 200
    assert daemon.http.post("/v1/checkpoint", json={"number": 1}).json()["code"] == "workspace_not_ready"


BIND = json.dumps({"workspace_id": WORKSPACE, "name": "mine", "model": {"base_url": "http://127.0.0.1:9", "api_key": "sk"}})

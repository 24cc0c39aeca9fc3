"""Events as people read them: every kind, and nothing that drives a terminal."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_core.contract.events import EVENT_BODY, KINDS
from ff_desktop.cli.plain import one_line, plain
from ff_desktop.cli.render import lines

EVIL = "a\x1b[2J\x1b]8;;http://evil\x07b\x9b31m\r\n\u202ecod.exe\x00\x7f"
ID = str(UUID(int=7))

SAMPLES = {
    "session.started": ({"name": "main", "model": "opus", "permissions": "STRICT"}, "main"),
    "session.status": ({"status": "FAILED", "activity": "IDLE", "error": {"code": "c", "message": "It died."}}, "It died. (c)"),
    "message.queued": ({"message_id": ID, "text": "do it"}, "do it"),
    "message.user": ({"message_id": ID, "text": "do it"}, "> do it"),
    "message.cancelled": ({"message_id": ID, "text": "do it"}, "do it"),
    "message.delta": ({"text": "hel"}, None),
    "message.assistant": ({"text": "Done.\nReally.", "truncated": True}, "Really."),
    "thinking": ({"text": "hmm"}, "~ hmm"),
    "tool.started": ({"tool_use_id": "t", "name": "Bash", "input": {"command": "make"}}, "* Bash: make"),
    "tool.finished": ({"tool_use_id": "t", "output": "ok", "is_error": False}, "ok"),
    "permission.requested": ({"request_id": ID, "tool_name": "Write", "input": {"file_path": "/a", "content": "x"}}, "/a"),
    "permission.resolved": ({"request_id": ID, "decision": "deny", "message": "no"}, "deny: no"),
    "question.asked": ({"request_id": ID, "questions": [{"question": "Which?", "options": [{"label": "A"}]}]}, "- A"),
    "question.answered": ({"request_id": ID, "answers": {"Which?": "A"}}, "Which?: A"),
    "model.retrying": (
        {"attempt": 2, "attempts_max": 9, "delay_ms": 1500, "http_status": 529, "message": "It is overloaded."},
        "It is overloaded. Try 2 of 9 in 1.5 s.",
    ),
    "turn.finished": ({"message_ids": [ID], "outcome": "failed", "error": {"code": "c", "message": "No."}}, "turn failed"),
    "workspace.restored": (
        {"checkpoint": 7, "saved_at": "2026-11-25T12:30:00Z", "saved_seq": 40, "lost_events": 2}
        | {"left_out": [{"path": "repo/node_modules", "reason": "ignored"}], "left_out_count": 1},
        "restored from checkpoint 7, saved at 2026-11-25 12:30:00 UTC",
    ),
    "workspace.status": ({"status": "READY"}, "workspace is READY"),
    "handoff.started": ({"handoff_id": ID, "direction": "SEND"}, "on the move to the cloud"),
    "handoff.aborted": ({"handoff_id": ID, "direction": "SEND", "reason": "You gave it up."}, "it stays here: You gave it up."),
    "handoff.arrived": (
        {"handoff_id": ID, "direction": "PULL", "location": "DESKTOP", "epoch": 2, "place": "/w"},
        "lives on the desktop now: /w",
    ),
    "process.output": ({"process": "clone", "channel": "stderr", "text": "Cloning\n"}, "clone: Cloning"),
    "notice": ({"name": "compaction", "message": "The history was shortened."}, "The history was shortened."),
}


def test_there_is_a_sample_of_every_kind():
    assert set(SAMPLES) == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_readable(kind):
    fields, expected = SAMPLES[kind]
    text = "\n".join(line.text for line in lines(EVENT_BODY.validate_python({"kind": kind, **fields})))
    assert expected is None or expected in text


def poisoned(value, key=""):
    """The same sample with hostile text wherever the contract leaves the text to somebody else."""
    words = {"kind", "permissions", "status", "activity", "decision", "outcome", "channel", "saved_at", "direction", "location"}
    if key in words or value == ID:
        return value
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    if isinstance(value, dict):
        return {name: poisoned(item, name) for name, item in value.items()}
    return value


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_hostile_text_is_harmless_in_every_kind(kind):
    body = EVENT_BODY.validate_python(poisoned({"kind": kind, **SAMPLES[kind][0]}))
    for line in lines(body):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line.text), line


def test_a_kind_of_the_future_is_named():
    (line,) = lines(EVENT_BODY.validate_python({"kind": "ratchet\x1b.decision", "why": "because"}))
    assert line.text.startswith("ratchet␛.decision")


def test_long_tool_output_is_cut_and_a_permission_is_not():
    body = {"kind": "tool.finished", "tool_use_id": "t", "output": "\n".join("x" * 2000 for _ in range(50)), "is_error": False}
    shown = lines(EVENT_BODY.validate_python(body))
    assert len(shown) == 21
    assert shown[-1].text == "  … 30 more lines"
    command = "\n".join(f"step {number}; rm -rf /" for number in range(100))
    body = {"kind": "permission.requested", "request_id": ID, "tool_name": "Bash", "input": {"command": command}}
    text = "\n".join(line.text for line in lines(EVENT_BODY.validate_python(body)))
    assert "step 99; rm -rf /" in text


@given(st.text())
def test_plain_text_never_drives_a_terminal(text):
    safe = plain(text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]", safe)
    safe.encode()
    assert "\n" not in one_line(text)
    assert len(one_line(text, 20)) <= 20


def test_ordinary_text_stays_as_it_is():
    text = "Grüße, 世界, שלום, 👩‍👩‍👧 café — “quoted”"
    assert plain(text) == text
    assert one_line(text) == text

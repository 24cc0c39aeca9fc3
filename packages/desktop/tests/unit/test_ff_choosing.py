"""What the user means, and when a prompt is answered."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from ff_core.contract.events import (
    Event,
    MessageCancelled,
    MessageQueued,
    MessageUser,
    PermissionRequested,
    SessionChanged,
    TurnFinished,
)
from ff_core.contract.session import Activity, Answer, Option, PendingRequest, Question, SessionStatus
from ff_core.errors import InvalidInput
from ff_desktop.address import Server
from ff_desktop.cli.choosing import Reply, answer_of, choices
from ff_desktop.connection import machine_name
from ff_desktop.errors import InsecureServer
from ff_desktop.turns import Asked, End, Turn

AT = datetime(2026, 11, 23, tzinfo=UTC)
SIZE = Question(question="Size?", options=(Option(label="S"), Option(label="L")))
EXTRAS = Question(question="Extras?", multi_select=True, options=(Option(label="Fast"), Option(label="L"), Option(label="Red")))


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        (["s", "fast"], {"Size?": "S", "Extras?": "Fast"}),
        (["L", "L"], {"Size?": "L", "Extras?": "L"}),
        (["Red", "S", " fast "], {"Size?": "S", "Extras?": "Red, Fast"}),
    ],
)
def test_labels_go_to_their_questions(labels, answers):
    assert choices([SIZE, EXTRAS], labels) == answers


@pytest.mark.parametrize("labels", [["S"], ["S", "L", "L"], ["XL", "Fast"], ["S", "S", "Fast"]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(InvalidInput):
        choices([SIZE, EXTRAS], labels)


def pending(kind):
    questions = (SIZE,) if kind == "question" else ()
    return PendingRequest(id=UUID(int=1), kind=kind, tool_name="T", input={}, questions=questions, asked_at=AT)


@pytest.mark.parametrize(
    ("kind", "reply", "answer"),
    [
        ("permission", Reply(allow=True), Answer(decision="allow")),
        ("permission", Reply(always=True), Answer(decision="allow_always")),
        ("permission", Reply(deny=True, message="no"), Answer(decision="deny", message="no")),
        ("question", Reply(choose=("L",)), Answer(answers={"Size?": "L"})),
        ("question", Reply(text="neither"), Answer(message="neither")),
    ],
)
def test_replies_become_answers(kind, reply, answer):
    assert answer_of(pending(kind), reply) == answer


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("permission", Reply(allow=True, deny=True)),
        ("permission", Reply(allow=True, message="why not")),
        ("permission", Reply(text="yes")),
        ("permission", Reply(message="no")),
        ("question", Reply(allow=True)),
        ("question", Reply(deny=True)),
        ("question", Reply(choose=("L",), text="L")),
        ("question", Reply(text="")),
    ],
)
def test_replies_that_do_not_fit_are_refused(kind, reply):
    with pytest.raises(InvalidInput):
        answer_of(pending(kind), reply)


ME, OTHER = UUID(int=10), UUID(int=11)
MINE, THEIRS = UUID(int=20), UUID(int=21)


def verdicts(*bodies, session=ME):
    turn, found = Turn(ME, MINE), []
    for seq, body in enumerate(bodies, 1):
        event = Event(workspace_id=UUID(int=1), seq=seq, at=AT, session_id=session, body=body)
        found.append(turn.judge(event) if turn.concerns(event) else "not ours")
    return found


def done(*ids, outcome="done"):
    return TurnFinished(message_ids=ids, outcome=outcome)


QUEUED, GIVEN = MessageQueued(message_id=MINE, text="x"), MessageUser(message_id=MINE, text="x")
COMPLETED = SessionChanged(status=SessionStatus.COMPLETED, activity=Activity.IDLE)
FAILED = SessionChanged(status=SessionStatus.FAILED, activity=Activity.IDLE)


def test_the_wait_ends_with_the_turn_that_answers_the_prompt():
    assert verdicts(FAILED, done(MINE), QUEUED, done(THEIRS), GIVEN, done(), done(THEIRS, MINE)) == [
        "not ours", "not ours", None, None, None, None, End.DONE,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body", [done(MINE, outcome="failed"), done(MINE, outcome="interrupted"), MessageCancelled(message_id=MINE, text="x"), FAILED]
)
def test_the_wait_ends_badly(body):
    assert verdicts(QUEUED, body) == [None, End.STOPPED]


def test_an_agent_that_leaves_has_answered_only_if_it_had_the_prompt():
    assert verdicts(QUEUED, COMPLETED, GIVEN, COMPLETED) == [None, None, None, End.STOPPED]


def test_a_request_is_to_be_looked_up():
    body = PermissionRequested(request_id=UUID(int=5), tool_name="T", input={})
    assert verdicts(QUEUED, body) == [None, Asked(UUID(int=5))]
    assert verdicts(QUEUED, body, session=OTHER) == ["not ours", "not ours"]


@pytest.mark.parametrize(
    "text",
    ["https://factory.example.com", "http://127.0.0.1:8420", "http://localhost/", "http://[::1]:8420", "https://a.b/prefix/"],
)
def test_good_addresses(text):
    assert Server.parse(text, insecure=False).url == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "factory",
        "ftp://a",
        "https://",
        "https://u:p@a.b",
        "https://a.b?x=1",
        "https://a.b#x",
        "https://a.b/\x1b",
        "http://[::1",
    ],
)
def test_bad_addresses(text):
    with pytest.raises(InvalidInput):
        Server.parse(text, insecure=True)


@pytest.mark.parametrize(
    "text", ["http://factory.example.com", "http://127.0.0.1.evil.example", "http://10.0.0.1", "http://localhost.evil"]
)
def test_plain_http_to_others_is_refused(text):
    with pytest.raises(InsecureServer):
        Server.parse(text, insecure=False)
    assert Server.parse(text, insecure=True).insecure


def test_a_machine_is_named_whatever_its_host_is_called():
    assert machine_name("laptop") == "laptop"
    assert machine_name("../e\x1bvil\n") == "..evil"
    assert len(machine_name("x" * 500)) == 60
    assert machine_name("🦊") == "a machine"

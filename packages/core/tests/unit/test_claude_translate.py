"""What the CLI was heard to say (transcripts/, by CLI version) and what we make of it."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from claude_agent_sdk import AssistantMessage, ResultMessage, SystemMessage, ToolUseBlock, UserMessage
from claude_agent_sdk._internal.message_parser import parse_message
from claude_agent_sdk.types import ToolResultBlock

from ff_core.claude.translate import Turn, translate
from ff_core.claude.transport import parse_line
from ff_core.contract.events import TEXT_CHARS_MAX
from ff_core.ids import MessageId
from ff_core.sessions.backend import ConversationMoved, Hinted, HintsVoid, Noted, PromptSettled, TurnEnded

RECORDED = sorted((Path(__file__).parents[1] / "transcripts").glob("*/*.jsonl"))
assert RECORDED


def replay(path: Path) -> tuple[list, Turn]:
    head, *lines = path.read_bytes().splitlines()
    about = json.loads(head)
    turn = Turn(about["session_id"], {MessageId(UUID(prompt)) for prompt in about["prompts"]})
    turn.interrupting = path.stem.startswith("interrupt")
    return [fact for line in lines for fact in translate(parse_message(parse_line(line)), turn)], turn


def story(facts: list) -> list[str]:
    """The stored events in a word each, and what happens to the turn."""
    told = []
    for fact in facts:
        match fact:
            case Noted(body):
                told.append(body.kind if body.kind != "notice" else f"notice {body.name}")
            case TurnEnded(body):
                told.append(f"{body.outcome} {len(body.message_ids)}")
            case ConversationMoved():
                told.append("moved")
    return told


STORIES = {
    "work": ["thinking", "message.assistant", *["tool.started", "tool.finished"] * 2, "message.assistant", "done 1"],
    "subagent": [
        *["tool.started", "tool.finished", "message.assistant", "done 1"],
        *["tool.started", "tool.finished", "message.assistant", "notice task_notification"],
        *["message.assistant", "done 0"],
    ],
    "background": [
        *["tool.started", "tool.finished", "message.assistant", "done 1"],
        *["notice task_notification", "message.assistant", "done 0"],
    ],
    "interrupt_text": ["message.assistant", "interrupted 1"],
    "interrupt_tool": ["tool.started", "tool.finished", "interrupted 1"],
    "retry": ["model.retrying", "message.assistant", "done 1"],
    "cut": ["model.retrying", "message.assistant", "done 1"],
    "refused": ["failed 1", "message.assistant", "done 1"],
    "cleared": ["message.assistant", "done 1", "notice conversation_reset", "moved", "done 1", "message.assistant", "done 1"],
    "compacted": ["message.assistant", "done 1", "notice compact_boundary", "notice user", "notice user", "done 1"],
    "usage": ["message.assistant", "done 1"],
}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_stream(path):
    facts, turn = replay(path)
    assert story(facts) == STORIES[path.stem]
    assert turn.prompts == set(), "every prompt was settled by its turn's end"
    assert not any(isinstance(fact, PromptSettled) for fact in facts)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_hints_since_the_last_reset_are_the_text(path):
    hinted, spoken = "", []
    for fact in replay(path)[0]:
        match fact:
            case HintsVoid():
                hinted = ""
            case Hinted(text, False):
                hinted += text
            case Noted(body) if body.kind == "message.assistant" and body.parent_tool_use_id is None:
                if hinted:
                    spoken.append((hinted, body.text))
                hinted = ""
    assert all(hinted == said for hinted, said in spoken)


def test_costs_are_of_the_turn_not_of_the_process():
    ends = [fact.body for fact in replay(next(p for p in RECORDED if p.stem == "cleared"))[0] if isinstance(fact, TurnEnded)]
    assert [0.002 < end.cost_usd < 0.004 for end in ends] == [True, False, True]


def test_a_refusal_is_told_once_with_the_words_of_the_api():
    (failed, *_) = [
        fact.body for fact in replay(next(p for p in RECORDED if p.stem == "refused"))[0] if isinstance(fact, TurnEnded)
    ]
    assert failed.error.code == "model_forbidden"
    assert failed.error.message.endswith("It says: Your API key does not have permission")


def turn() -> Turn:
    return Turn("a-session", {MessageId(UUID(int=1)), MessageId(UUID(int=2))})


def result(**more) -> ResultMessage:
    given = {"subtype": "success", "duration_ms": 1, "duration_api_ms": 1, "is_error": False, "num_turns": 1}
    return ResultMessage(**{**given, "session_id": "a-session", **more})


def test_an_unknown_kind_of_message_is_kept():
    line = b'{"type":"brand_new","fact":"x\\u0000y"}'
    (fact,) = translate(parse_message(parse_line(line)), turn())
    assert fact.body.name == "unknown:brand_new"
    assert "brand_new" in fact.body.message


def test_an_unknown_system_message_is_kept():
    (fact,) = translate(SystemMessage(subtype="brand_new", data={"type": "system", "subtype": "brand_new", "fact": 1}), turn())
    assert (fact.body.name, fact.body.message) == ("brand_new", "{'fact': 1}")


def test_what_is_no_message_is_ignored():
    assert parse_line(b"[SandboxDebug] hello\n") is None
    assert parse_line(b"\n") is None


def test_long_texts_are_cut_and_unwritable_ones_mended():
    blocks = [
        ToolResultBlock(tool_use_id="t", content="x" * (TEXT_CHARS_MAX + 1)),
        ToolResultBlock(tool_use_id="t", content="\ud800\0"),
    ]
    first, second = (fact.body for fact in translate(UserMessage(content=blocks), turn()))
    assert (len(first.output), first.truncated) == (TEXT_CHARS_MAX, True)
    assert second.output == "\ufffd\ufffd"
    call = ToolUseBlock(id="t", name="Write", input={"file_path": "/a", "content": "x" * 100_000})
    (fact,) = translate(AssistantMessage(content=[call], model="m"), turn())
    assert fact.body.truncated
    assert fact.body.input["file_path"] == "/a"
    assert len(fact.body.input["content"]) < 10_000


def test_a_turn_absorbs_a_second_prompt():
    (ended,) = translate(result(user_message_uuids=[str(UUID(int=1)), str(UUID(int=2)), "not ours"]), turn())
    assert ended.body.message_ids == (UUID(int=1), UUID(int=2))


def test_a_result_of_the_agents_own_answers_no_prompt():
    state = turn()
    (ended,) = translate(result(origin={"kind": "task-notification"}, is_error=True, api_error_status=529), state)
    assert (ended.body.message_ids, len(state.prompts)) == ((), 2)
    (ended,) = translate(result(result=""), state)
    assert ended.body.message_ids == ()


def test_an_error_without_names_is_about_all_prompts():
    (ended,) = translate(result(is_error=True, errors=["boom"]), turn())
    assert ended.body.message_ids == (UUID(int=1), UUID(int=2))
    assert ended.body.error.code == "agent_stopped"
    assert ended.body.error.message.endswith("It says: boom")


def test_an_abort_nobody_asked_for_is_a_failure():
    state = turn()
    (ended,) = translate(result(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools"), state)
    assert ended.body.outcome == "failed"
    assert state.aborted


def test_a_prompt_settled_without_a_result():
    state = turn()
    lifecycle = {"type": "command_lifecycle", "command_uuid": str(UUID(int=2)), "state": "cancelled"}
    message = parse_message(parse_line(json.dumps(lifecycle).encode()))
    assert translate(message, state) == [PromptSettled(MessageId(UUID(int=2)), cancelled=True)]
    assert translate(message, state) == []

"""The prompt language of the scripted model."""

import json

import pytest

from ff_core.testing.model_api import frames, reply
from ff_core.testing.model_api.script import SILENT_END, Directive, ScriptError, last_prompt, next_step, parse

TOOLS = [{"name": name} for name in ("Bash", "Write", "Agent", "TaskCreate")]


def never(_number: int, _times: int) -> bool:
    return False


def always(_number: int, _times: int) -> bool:
    return True


def user(*texts: str) -> dict:
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def result(*texts: str) -> dict:
    blocks = [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]
    return {"role": "user", "content": blocks + [{"type": "text", "text": text} for text in texts]}


ASSISTANT = {"role": "assistant", "content": [{"type": "text", "text": "x"}]}


def body(*messages: dict, **more) -> dict:
    return {"messages": list(messages), "tools": TOOLS, "stream": True, **more}


def played(script: str, **more) -> list:
    return list(reply.build(parse(script)[0], body(**more), never).parts)


def test_a_reply_goes_on_until_a_directive_ends_it():
    replies = parse("hello\n%say a\n  %bash ls -l\nnoise\n%say b\n%end\n%say c")
    assert replies == [
        (Directive("say", "a"), Directive("bash", "ls -l")),
        (Directive("say", "b"), Directive("end", "")),
        (Directive("say", "c"),),
    ]


def test_the_prompt_is_what_a_person_asked_last():
    assert last_prompt([]) == (-1, "")
    assert last_prompt([{"role": "user", "content": "plain"}]) == (0, "plain")
    noise = "<system-reminder>x</system-reminder>"
    assert last_prompt([user("first"), ASSISTANT, user("second", noise), ASSISTANT, result(), user(noise)]) == (
        2,
        "second",
    )
    assert last_prompt([user("first"), ASSISTANT, result("beside", "%say typed meanwhile")])[1] == "%say typed meanwhile"
    assert last_prompt([user("first"), ASSISTANT, result("beside")]) == (0, "first")


def test_the_step_is_the_number_of_answers_since_the_prompt():
    prompt = user("%bash one\n%say two")
    assert next_step(body(prompt)).plan == (Directive("bash", "one"),)
    assert next_step(body(user("old"), ASSISTANT, prompt, ASSISTANT, result())).plan == (Directive("say", "two"),)
    assert next_step(body(prompt, ASSISTANT, result(), ASSISTANT, result())).plan == SILENT_END
    assert next_step(body(prompt)).key == next_step(body(prompt)).key
    assert next_step(body(prompt)).key != next_step(body(prompt, ASSISTANT, result())).key


def test_phrases_echo_and_queue():
    asked = body(user("Please write a file and commit"), system="Working directory: /w/repo\nmore")
    assert next_step(asked).plan[1] == Directive("write", "/w/repo/hello.txt hello from the scripted model")
    assert next_step(body(user("hi  there"))).plan[0] == Directive("say", "You said: hi there")
    queued = parse("%say queued")[0]
    assert next_step(body(user("hi")), queued).plan == queued
    assert next_step({"messages": [user("hi")]}, queued).kind == "side"


def test_side_requests():
    compaction = body(user("x"), user("CRITICAL: Respond with TEXT ONLY. …"))
    assert "<summary>" in next_step(compaction).plan[0].argument
    schema = {"type": "json_schema", "schema": {"properties": {"title": {"type": "string"}, "n": {"type": "integer"}}}}
    step = next_step({"messages": [user("x")], "output_config": {"format": schema}})
    assert json.loads(step.plan[0].argument) == {"title": "Scripted title", "n": 1}
    titled = next_step({"messages": [user("x")], "system": "Write a title"})
    assert "Scripted session" in titled.plan[0].argument
    assert next_step({"messages": [user("quota")]}).plan == (Directive("say", "ok"),)


@pytest.mark.parametrize(
    ("script", "name", "given"),
    [
        ("%bash ls -l", "Bash", {"command": "ls -l", "description": "Scripted command"}),
        ("%write /a b\\nc", "Write", {"file_path": "/a", "content": "b\nc\n"}),
        ("%edit /a x y => z", "Edit", {"file_path": "/a", "old_string": "x y", "new_string": "z"}),
        ("%read /a b", "Read", {"file_path": "/a b"}),
        ('%tool Grep {"p": 1}', "Grep", {"p": 1}),
        ('%ask {"questions": []}', "AskUserQuestion", {"questions": []}),
        ("%todo a", "TaskCreate", {"subject": "a", "description": "a"}),
    ],
)
def test_tools(script, name, given):
    (part,) = played(script)
    assert (part.block["name"], part.block["input"]) == (name, given)


def test_more_tools():
    (background,) = played("%bg sleep 1")
    assert background.block["input"]["run_in_background"] is True
    (question,) = played("%ask Shall I?")
    assert question.block["input"]["questions"][0]["question"] == "Shall I?"
    (task,) = played("%task %say a|%say b")
    assert (task.block["name"], task.block["input"]["prompt"]) == ("Agent", "%say a\n%say b")
    both = played('%tools [{"name": "A"}, {"name": "B", "input": {"x": 1}}]')
    assert [part.block["name"] for part in both] == ["A", "B"]
    assert both[0].block["id"] != both[1].block["id"]


@pytest.mark.parametrize("script", ["%nonsense x", "%tool X {bad", "%stream many", "%sleep long"])
def test_bad_scripts_are_named(script):
    with pytest.raises(ScriptError):
        played(script)


def test_failures():
    failure = reply.failure(parse("%error 429 times=2 retry-after=7 should-retry=false msg=a_b")[0], always)
    assert failure == reply.Failure(429, "rate_limit_error", "a b", {"retry-after": "7", "x-should-retry": "false"})
    assert reply.failure(parse("%error 429 times=2")[0], never) is None


def frames_of(script: str, still_fails=never) -> list:
    return list(frames.frames(reply.build(parse(script)[0], body(), still_fails), body()))


def test_a_stream_has_the_events_the_cli_needs():
    sent = frames_of("%think hm well\n%say two words\n%bash ls")
    assert [frame.name for frame in sent] == [
        *("message_start", "ping"),
        *("content_block_start", *["content_block_delta"] * 3, "content_block_stop"),
        *("content_block_start", *["content_block_delta"] * 2, "content_block_stop"),
        *("content_block_start", *["content_block_delta"] * 4, "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    assert sent[5].data["delta"]["type"] == "signature_delta"
    assert sent[-2].data["delta"]["stop_reason"] == "tool_use"
    pieces = [f.data["delta"]["partial_json"] for f in sent if f.data.get("delta", {}).get("type") == "input_json_delta"]
    assert json.loads("".join(pieces))["command"] == "ls"
    assert sent[0].encode().startswith(b'event: message_start\ndata: {"type": "message_start", ')


def test_cuts_stalls_errors_and_empty_replies():
    cut = frames_of("%drop after=3 how=rst\n%stream 9", always)
    assert sum(isinstance(f, frames.Frame) and f.counts for f in cut) == 3
    assert cut[-1] == reply.Cut(3, "rst")
    assert frames_of("%drop after=99\n%say x", always)[-1] == reply.Cut(99, "eof")
    assert reply.Wait(5.0) in frames_of("%stall 5 after=2\n%stream 4")
    broken = frames_of("%say x\n%sse-error overloaded_error", always)
    assert broken[-1].data["error"]["type"] == "overloaded_error"
    assert any(isinstance(f, frames.Frame) and f.counts for f in frames_of("%sleep 0\n%end"))
    assert [f for f in frames_of("%stream 2 10 w") if isinstance(f, frames.Pace)] == [frames.Pace(0.1), frames.Pace(0.2)]
    assert frames_of("%say x\n%stop max_tokens")[-2].data["delta"]["stop_reason"] == "max_tokens"

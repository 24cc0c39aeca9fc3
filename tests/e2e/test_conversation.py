"""What a user does with an agent, through the API, with the real Claude CLI in a real container."""

import asyncio

import pytest
from api_user import User
from stack import MODEL_KEY, Stack

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]

COMMIT = "git add -A && git -c user.name=E2E -c user.email=e2e@example.invalid commit -qm 'Answer the question'"


async def test_an_agent_edits_runs_and_commits(stack: Stack, user: User) -> None:
    url = await stack.git.create("edit-and-commit", {"answer.txt": "41\n"})
    workspace = await user.ready(repo_url=url)
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(
            session.id,
            "%say I will correct the answer.\n%read /workspace/repo/answer.txt\n%edit /workspace/repo/answer.txt 41 => 42\n"
            f"%bash {COMMIT}\n%say Corrected and committed.",
        )
        finished = await heard.turn()
    assert finished.outcome == "done"
    assert finished.usage.output_tokens > 0
    assert [tool.name for tool in heard.of("tool.started")] == ["Read", "Edit", "Bash"]
    assert not any(tool.is_error for tool in heard.of("tool.finished"))
    assert [said.text for said in heard.of("message.assistant")] == ["I will correct the answer.", "Corrected and committed."]
    assert [event.seq for event in heard.events] == list(range(1, len(heard.events) + 1))
    assert await user.shell(workspace.id, "git log --format=%s -1; git show HEAD:answer.txt") == "Answer the question\n42\n"
    repository = await user.call("GET", f"/v1/workspaces/{workspace.id}/repository")
    assert (repository["branch"], repository["staged"], repository["unstaged"]) == ("main", 0, 0)
    async with asyncio.timeout(20):  # the copy of the journal follows within a moment
        while not (turns := (await user.call("GET", f"/v1/workspaces/{workspace.id}/turns"))["items"]):
            pass
    assert [(turn["session_id"], turn["outcome"]) for turn in turns] == [(str(session.id), "done")]
    assert (turns[0]["usage"]["output_tokens"], turns[0]["cost_usd"]) == (finished.usage.output_tokens, finished.cost_usd)
    keys = {request.headers.get("x-api-key") for request in stack.model.requests if "Answer the question" in str(request.body)}
    assert keys == {MODEL_KEY}
    await user.delete(workspace.id)


async def test_a_permission_is_denied_then_allowed(user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="STRICT")
    async with user.watch(workspace.id) as heard:
        for number, decision in enumerate(["deny", "allow"], start=1):
            await user.say(session.id, "%bash touch probe.txt\n%say So be it.")
            asked = await heard.until(lambda h, n=number: (h.of("permission.requested") + [None] * n)[n - 1])
            assert asked.tool_name == "Bash"
            assert asked.input["command"] == "touch probe.txt"
            assert [waiting.id for waiting in await user.pending(session.id)] == [asked.request_id]
            await user.answer(session.id, asked.request_id, decision=decision)
            await heard.turn(number)
            there = await user.run(workspace.id, "test", "-e", "probe.txt")
            assert there.exit_code == (0 if decision == "allow" else 1)
    assert [resolved.decision for resolved in heard.of("permission.resolved")] == ["deny", "allow"]
    again = await user.refused("POST", f"/v1/sessions/{session.id}/permissions/{asked.request_id}", {"decision": "allow"})
    assert again.status in {404, 409}
    await user.delete(workspace.id)


async def test_a_question_is_answered(stack: Stack, user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "Please ask me a question")
        asked = await heard.until(lambda h: (h.of("question.asked") or [None])[0])
        question = asked.questions[0].question
        await user.answer(session.id, asked.request_id, answers={question: "Red"})
        assert (await heard.turn()).outcome == "done"
    assert heard.of("question.answered")[0].answers == {question: "Red"}
    assert any("Red" in str(request.body.get("messages")) for request in stack.model.requests)
    await user.delete(workspace.id)


async def test_an_interrupt_stops_the_turn_and_the_session_goes_on(user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%stream 6000 60\n%say Never reached.")
        await heard.until(lambda h: any(hint.body.kind == "message.delta" for hint in h.hints))
        waiting = await user.say(session.id, "%say This one waits.")
        stopped = await user.call("POST", f"/v1/sessions/{session.id}/interrupt", {})
        assert stopped == {"was_working": True, "cancelled": 1}
        assert (await heard.turn()).outcome == "interrupted"
        assert [dropped.message_id for dropped in heard.of("message.cancelled")] == [waiting.id]
        await user.say(session.id, "%say Still here.")
        assert (await heard.turn(2)).outcome == "done"
    assert heard.of("message.assistant")[-1].text == "Still here."
    await user.delete(workspace.id)


async def test_prompts_queued_during_a_turn_are_answered_in_order(user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        first = await user.say(session.id, "%stream 60 40\n%bash echo first")
        await heard.until(lambda h: h.hints)
        second = await user.say(session.id, "%say second")
        third = await user.say(session.id, "%say third")
        await heard.turn(3)
    answered = [message_id for turn in heard.of("turn.finished") for message_id in turn.message_ids]
    assert answered == [first.id, second.id, third.id]
    assert [said.text for said in heard.of("message.assistant")][-2:] == ["second", "third"]
    await user.delete(workspace.id)


async def test_a_killed_agent_is_told_and_its_session_resumes(stack: Stack, user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%say Remember the number 7391.")
        await heard.turn(1)
        await user.say(session.id, "%stream 6000 60")
        await heard.until(lambda h: len(h.of("message.user")) == 2)
        await heard.until(lambda h: any(hint.body.kind == "message.delta" for hint in h.hints))
        await user.shell(workspace.id, "pkill -KILL -u dev -x claude")
        failed = await heard.turn(2)
        assert failed.outcome == "failed"
        assert failed.error.code == "agent_died"
        died = await heard.until(lambda h: [s for s in h.of("session.status") if s.status == "FAILED"])
        assert died[0].error.message
        await user.say(session.id, "%history\n%say And on we go.")
        assert (await heard.turn(3)).outcome == "done"
    last = stack.model.requests[-1]
    assert "Remember the number 7391." in str(last.body["messages"])
    resumed = [status for status in heard.of("session.status") if status.resumed]
    assert resumed
    await user.delete(workspace.id)


async def test_errors_of_the_model_reach_the_user_in_plain_words(user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%error 401 should-retry=false\n%say never")
        refused = await heard.turn(1)
        assert refused.outcome == "failed"
        assert "key" in refused.error.message.lower()
        await user.say(session.id, "%error 429 times=1 retry-after=1\n%say After the limit.")
        assert (await heard.turn(2)).outcome == "done"
        await user.say(session.id, "%error 529 times=1\n%say After the overload.")
        assert (await heard.turn(3)).outcome == "done"
        await user.say(session.id, "%drop after=3 how=rst times=1\n%stream 10 50\n%end")
        assert (await heard.turn(4)).outcome == "done"
    retries = {retry.http_status: retry.message for retry in heard.of("model.retrying")}
    assert {429, 529} <= set(retries)
    assert all(message.endswith(".") and "Traceback" not in message for message in retries.values())
    await user.delete(workspace.id)


async def test_a_message_sent_twice_is_taken_once(user: User) -> None:
    workspace = await user.ready()
    headers = {"Idempotency-Key": "the-same"}
    path = f"/v1/workspaces/{workspace.id}/sessions"
    one = await user.call("POST", path, {"permissions": "YOLO"}, headers=headers)
    two = await user.call("POST", path, {"permissions": "YOLO"}, headers=headers)
    assert one["id"] == two["id"]
    async with user.watch(workspace.id) as heard:
        for _ in range(3):
            await user.call("POST", f"/v1/sessions/{one['id']}/messages", {"text": "%say once"}, headers=headers)
        await heard.turn()
        await user.say(one["id"], "%say last")
        await heard.turn(2)
    assert [message.text for message in heard.of("message.user")] == ["%say once", "%say last"]
    await user.delete(workspace.id)

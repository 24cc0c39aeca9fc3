"""The scripted model API is good enough for the real Claude CLI."""

import os
from pathlib import Path

import claude_agent_sdk as sdk
import pytest

from ff_core.process import clean_env
from ff_core.testing.model_api import ModelApi

pytestmark = pytest.mark.claude
CLI = Path(sdk.__file__).parent / "_bundled/claude"


@pytest.fixture
async def api():
    async with ModelApi(tokens=["test-key"]) as api:
        yield api


async def talk(api: ModelApi, folder: Path, *prompts: str) -> list[list[sdk.Message]]:
    """One session, one prompt after another; the messages of each turn."""
    work, home = folder / "work", folder / "home"
    work.mkdir()
    home.mkdir()
    options = sdk.ClaudeAgentOptions(
        cli_path=CLI if CLI.exists() else None,
        cwd=work,
        system_prompt={"type": "preset", "preset": "claude_code"},
        setting_sources=[],
        permission_mode="bypassPermissions",
        env=clean_env(
            HOME=str(home),
            ANTHROPIC_BASE_URL=api.url,
            ANTHROPIC_API_KEY="test-key",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            IS_SANDBOX="1",
        ),
        stderr=lambda _line: None,
    )
    turns = []
    async with sdk.ClaudeSDKClient(options) as client:
        for prompt in prompts:
            await client.query(prompt)
            turns.append([message async for message in client.receive_response()])
    return turns


async def test_the_cli_runs_real_tools(api, tmp_path):
    work = tmp_path / "work"
    files, failing, cut, agent = await talk(
        api,
        tmp_path,
        f"%think let me see\n%write {work}/a.txt hello\n%edit {work}/a.txt hello => goodbye\n%bash cat a.txt\n%say done",
        "%error 529 times=1\n%say after the error",
        "%drop after=2 how=rst times=1\n%stream 5 0 w\n%end",
        "start a subagent",
    )
    assert (work / "a.txt").read_text() == "goodbye\n"
    assert [files[-1].result, failing[-1].result, cut[-1].result.split()[-1]] == ["done", "after the error", "w4"]
    assert agent[-1].result == "The subagent is back."
    for turn in (files, failing, cut, agent):
        assert not turn[-1].is_error
    results = [block for message in files if isinstance(message, sdk.UserMessage) for block in message.content]
    assert "goodbye" in str(results[-1])
    outcomes = [request.outcome for request in api.requests]
    assert "529 overloaded_error" in outcomes
    assert "cut after 2 (rst)" in outcomes
    assert any("from-subagent" in str(request.plan) for request in api.requests)
    assert {request.headers.get("x-api-key") for request in api.requests if request.kind} == {"test-key"}
    assert os.environ.get("ANTHROPIC_API_KEY") != "test-key"

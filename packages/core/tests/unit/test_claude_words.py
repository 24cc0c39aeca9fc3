"""Arguments, environment and sentences of the Claude room."""

import dataclasses
from pathlib import Path
from uuid import UUID

import pytest
from claude_agent_sdk import CLIJSONDecodeError, ResultError
from pydantic import SecretStr

from ff_core.claude.errors import api_error, death, retrying, start_failure
from ff_core.claude.options import ClaudeSettings, argv, environment
from ff_core.claude.transport import CliExited
from ff_core.contract.daemon import ModelAccess
from ff_core.contract.session import PermissionPreset
from ff_core.ids import SessionId, WorkspaceId
from ff_core.process import RunAs
from ff_core.sessions.backend import BackendSpec

SETTINGS = ClaudeSettings(Path("/opt/claude"), Path("/workspace/repo"), Path("/workspace/home"), RunAs(1000, 1000, Path("/h")))
ACCESS = ModelAccess(base_url="http://gateway:1", api_key=SecretStr("sk-secret"))


def spec(**more) -> BackendSpec:
    given = {
        "workspace_id": WorkspaceId(UUID(int=1)),
        "session_id": SessionId(UUID(int=2)),
        "provider_session_id": "a-name",
        "resume": False,
        "model": None,
        "permissions": PermissionPreset.STRICT,
        "decide": None,
    }
    return BackendSpec(**{**given, **more})


def words(**more) -> list[str]:
    return argv(spec(**more), SETTINGS, ACCESS)


def test_a_conversation_is_begun_or_resumed_never_both():
    assert "--session-id=a-name" in words()
    assert not [word for word in words() if word.startswith("--resume")]
    assert "--resume=a-name" in words(resume=True)
    assert not [word for word in words(resume=True) if word.startswith("--session-id")]


@pytest.mark.parametrize(
    ("preset", "mode", "may_skip"),
    [("STRICT", "default", False), ("RELAXED", "acceptEdits", False), ("YOLO", "bypassPermissions", True)],
)
def test_presets(preset, mode, may_skip):
    told = words(permissions=PermissionPreset(preset))
    assert f"--permission-mode={mode}" in told
    assert ("--allow-dangerously-skip-permissions" in told) is may_skip


def test_grants_of_an_earlier_process_hold():
    rule = {"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": "npm test:*"}, {"toolName": "WebFetch"}]}
    told = words(grants=(rule, {"type": "setMode", "mode": "acceptEdits"}, {"type": "addDirectories", "directories": ["/d"]}))
    assert "--allowedTools=Bash(npm test:*),WebFetch" in told
    assert "--permission-mode=acceptEdits" in told
    assert "--add-dir=/d" in told


def test_the_key_is_in_the_environment_only():
    assert not [word for word in words() if "sk-secret" in word]
    assert environment(spec(), SETTINGS, ACCESS)["ANTHROPIC_API_KEY"] == "sk-secret"


def test_nothing_of_the_daemon_reaches_the_agent(monkeypatch):
    for name in (
        "FF_TOKEN_SHA256",
        "FF_DATABASE_URL",
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "ours")
    assert "ours" not in environment(spec(), SETTINGS, ACCESS).values()
    assert "IS_SANDBOX" not in environment(spec(), SETTINGS, ACCESS)


USERS = {
    "HOME": "/home/ada",
    "PATH": "/usr/bin",
    "CLAUDE_CONFIG_DIR": "/home/ada/.claude-work",
    "ANTHROPIC_AUTH_TOKEN": "sk-hers",
}
AT_HOME = dataclasses.replace(SETTINGS, run_as=None, cwd=Path("/home/ada/worktree"), users=USERS)
NO_ACCESS = ModelAccess(base_url=None, api_key=None)


def test_on_a_desktop_the_agent_has_the_users_own_environment_login_and_settings():
    env = environment(spec(), AT_HOME, NO_ACCESS)
    assert env.items() >= USERS.items()
    assert env["FACTORY_SESSION_ID"] == str(spec().session_id)
    assert not {"ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "IS_SANDBOX", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"} & env.keys()
    told = argv(spec(), AT_HOME, NO_ACCESS)
    assert "--setting-sources=user,project" in told
    assert not [word for word in told if word.startswith("--settings=")]
    assert not [word for word in told if "container" in word or "sk-hers" in word]


def test_on_a_desktop_a_repository_cannot_send_the_key_elsewhere_than_its_user_said():
    elsewhere = dataclasses.replace(AT_HOME, users={**USERS, "ANTHROPIC_BASE_URL": "https://gateway.example.com"})
    assert '--settings={"env": {"ANTHROPIC_BASE_URL": "https://gateway.example.com"}}' in argv(spec(), elsewhere, NO_ACCESS)
    secret = dataclasses.replace(AT_HOME, users={**USERS, "ANTHROPIC_BASE_URL": "https://ada:pw@gateway.example.com"})
    assert not [word for word in argv(spec(), secret, NO_ACCESS) if "pw" in word]


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (401, "Invalid API key", "model_key_refused"),
        (401, 'API Error: 401 {"error":{"message":"The agent has no key for the model. Set yours"}}', "model_key_missing"),
        (404, "API Error: 404 no such model", "model_unknown"),
        (418, "teapot", "model_failed"),
        (503, "", "model_failed"),
        (400, "Prompt is too long · the request", "prompt_too_long"),
        (None, "API Error: Unable to connect to API (ECONNREFUSED)", "model_unreachable"),
        (None, "Not logged in · Please run /login", "model_key_missing"),
        (None, "", "agent_stopped"),
    ],
)
def test_api_errors(status, text, code):
    error = api_error(status, text)
    assert error.code == code
    assert error.message.endswith(".") or "It says: " in error.message


def test_retries_say_why():
    assert retrying(529, 1500) == "The model's API is overloaded; the agent tries again in 1.5 s."
    assert "HTTP 500" in retrying(500, 0)
    assert "connection" in retrying(None, 0)


@pytest.mark.parametrize(
    ("error", "reason", "clean"),
    [
        (CliExited(-9, ""), "killed", False),
        (CliExited(143, ""), "killed", False),
        (CliExited(0, ""), "exited", True),
        (CliExited(1, ""), "exited", False),
        (CLIJSONDecodeError("", ValueError()), "broken", False),
        (None, "broken", False),
    ],
)
def test_deaths(error, reason, clean):
    died = death(error, in_turn=False)
    assert (died.reason, died.clean, died.code) == (reason, clean, "agent_died")
    assert "your next prompt goes on" in died.sentence


def test_a_death_behind_an_error_result_is_seen_through():
    error = ResultError("boom", data={}, exit_code=-9)
    error.__cause__ = CliExited(-9, "")
    assert death(error, in_turn=False).reason == "killed"


def test_a_clean_exit_after_an_abort_is_not_clean():
    assert not death(CliExited(0, ""), in_turn=True).clean


@pytest.mark.parametrize(
    ("error", "stderr", "code"),
    [
        (FileNotFoundError(2, "No such file"), "", "agent_missing"),
        (TimeoutError(), "", "agent_start_timed_out"),
        (CliExited(1, ""), "No conversation found with session ID: x", "resume_failed"),
        (ResultError("No conversation found with session ID: x"), "", "resume_failed"),
        (CliExited(1, ""), "error: unknown option for sk-secret", "agent_start_failed"),
    ],
)
def test_start_failures(error, stderr, code):
    failure = start_failure(error, stderr, "sk-secret")
    assert failure.code == code
    assert "sk-secret" not in failure.detail

"""How the Claude CLI is started: arguments and environment. Pure, but for the variables that pass through."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_core.claude.strays import MARK
from ff_core.contract.base import Json
from ff_core.contract.daemon import ModelAccess
from ff_core.contract.session import PermissionPreset
from ff_core.process import RunAs, clean_env
from ff_core.sessions.backend import BackendSpec

PUBLIC_API_URL = "https://api.anthropic.com"
BASE_URL = "ANTHROPIC_BASE_URL"
APPEND = (
    "You work in a workspace of Factory Factory, in a container of your own. The user watches remotely and may be away: "
    "go on by yourself as far as you can, and ask with the AskUserQuestion tool when a decision is his."
)
APPEND_AT_HOME = (
    "You work in a workspace of Factory Factory: a git worktree with a branch of its own, on the user's own machine, where other "
    "worktrees of the same repository are worked in too. Stay in your own folder. The user may be away: "
    "go on by yourself as far as you can, and ask with the AskUserQuestion tool when a decision is his."
)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_MODES = {
    PermissionPreset.STRICT: "default",
    PermissionPreset.RELAXED: "acceptEdits",
    PermissionPreset.YOLO: "bypassPermissions",
}


@dataclass(frozen=True)
class ClaudeSettings:
    """Where the CLI is and where and as whom it runs. ``cwd`` is the checkout; ``home`` keeps its transcripts."""

    executable: Path
    cwd: Path
    home: Path
    run_as: RunAs | None
    model_retries_max: int | None = None
    """How often the CLI asks a failing model API again by itself; None is its own default (10, over minutes)."""
    users: Mapping[str, str] | None = None
    """On a desktop: the environment of its user. His configuration, login and variables count as in a terminal of his, and no
    access to the model is given. None: an environment of the agent's own, with the access that is given."""


def argv(spec: BackendSpec, settings: ClaudeSettings, access: ModelAccess) -> list[str]:
    """The command line. Values that could begin with a dash are bound with ``=``. Holds no secret."""
    name = spec.provider_session_id
    words = [
        str(settings.executable),
        "--output-format=stream-json",
        "--input-format=stream-json",
        "--verbose",
        f"--resume={name}" if spec.resume else f"--session-id={name}",
        f"--append-system-prompt={APPEND if settings.users is None else APPEND_AT_HOME}",
        "--include-partial-messages",
        # Prompts come back with their uuid when they are taken.
        "--replay-user-messages",
        # Requests come to us over the control protocol.
        "--permission-prompt-tool=stdio",
        f"--permission-mode={_mode(spec)}",
        # CLAUDE.md, skills and commands of the repository are what its users expect to work. Its settings may also run
        # hooks and allow tools, as on the laptop where they were written: whatever they run, runs as the agent's user in
        # the agent's container. Local settings are not read, so nothing an agent writes there widens a preset; nor are the
        # user's, but on his own machine, where they may hold his login and lie outside of what the agent works in.
        f"--setting-sources={'project' if settings.users is None else 'user,project'}",
    ]
    base_url = _base_url(settings, access)
    if base_url is not None:
        # This wins over the repository's own settings, which could otherwise send the model's key to another host.
        words.append(f"--settings={json.dumps({'env': {BASE_URL: base_url}})}")
    if spec.permissions is PermissionPreset.YOLO:
        words.append("--allow-dangerously-skip-permissions")
    if spec.model is not None:
        words.append(f"--model={spec.model}")
    rules = [rule for grant in spec.grants for rule in _rules(grant)]
    if rules:
        words.append(f"--allowedTools={','.join(rules)}")
    words.extend(f"--add-dir={folder}" for grant in spec.grants for folder in _folders(grant))
    return words


def environment(spec: BackendSpec, settings: ClaudeSettings, access: ModelAccess) -> dict[str, str]:
    """All the CLI gets to see: a few of our variables by name, never the daemon's own, and the model's key.

    Or the user's own environment, where that is his machine.
    """
    if settings.users is not None:
        return {**settings.users, **_session(spec)}
    ours = {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}
    env = {
        **clean_env(),
        **ours,
        "HOME": str(settings.home),
        "CLAUDE_CONFIG_DIR": str(settings.home / ".claude"),
        "SHELL": "/bin/bash",
        BASE_URL: access.base_url or PUBLIC_API_URL,
        # No telemetry, no update check: the only host asked is the model's.
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        **_session(spec),
    }
    if access.api_key is not None:
        env["ANTHROPIC_API_KEY"] = access.api_key.get_secret_value()
    if settings.model_retries_max is not None:
        env["CLAUDE_CODE_MAX_RETRIES"] = str(settings.model_retries_max)
    if settings.run_as is None and os.geteuid() == 0:
        # Root may skip permissions only where the CLI is told that it is contained.
        env["IS_SANDBOX"] = "1"
    env.setdefault("LANG", "C.UTF-8")
    return env


def _mode(spec: BackendSpec) -> str:
    modes = [str(grant["mode"]) for grant in spec.grants if grant.get("type") == "setMode"]
    return modes[-1] if modes and spec.permissions is PermissionPreset.STRICT else _MODES[spec.permissions]


def _session(spec: BackendSpec) -> dict[str, str]:
    return {
        "BROWSER": "none",
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS": "1",
        MARK: str(spec.session_id),
    }


def _base_url(settings: ClaudeSettings, access: ModelAccess) -> str | None:
    """Where the model is asked; None: wherever the user's own settings say."""
    if settings.users is None:
        return access.base_url or PUBLIC_API_URL
    url = settings.users.get(BASE_URL)
    return None if url is None or "@" in url else url  # the command line is no place for a password


def _rules(grant: Mapping[str, Any]) -> list[str]:
    if grant.get("type") != "addRules":
        return []
    rules: list[Json] = grant.get("rules") or []
    return [
        f"{rule['toolName']}({rule['ruleContent']})" if rule.get("ruleContent") is not None else str(rule["toolName"])
        for rule in rules
    ]


def _folders(grant: Mapping[str, Any]) -> list[str]:
    return [str(folder) for folder in grant.get("directories") or []] if grant.get("type") == "addDirectories" else []

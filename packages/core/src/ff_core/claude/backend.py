"""A Claude CLI as the agent of a session: one process, one permanent reader, prompts known by our own ids."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    PermissionResult,
    PermissionResultAllow,
    PermissionResultDeny,
    PermissionUpdate,
    ToolPermissionContext,
)
from claude_agent_sdk._errors import MessageParseError  # not exported, but raised to its users
from pydantic import ValidationError

from ff_core.claude.errors import death, start_failure
from ff_core.claude.options import ClaudeSettings, argv, environment
from ff_core.claude.strays import kill_strays
from ff_core.claude.translate import Turn, translate
from ff_core.claude.transport import CliTransport
from ff_core.contract.base import Json
from ff_core.contract.daemon import ModelAccess
from ff_core.contract.events import Notice
from ff_core.contract.session import Option, Question
from ff_core.ids import MessageId
from ff_core.sessions.backend import Allow, BackendSpec, Deny, Fact, Noted, ToolCall
from ff_core.sessions.errors import AgentGone, ModelKeyMissing
from ff_core.sessions.permissions import QUESTION_TOOL
from ff_core.sessions.texts import NOTICE_CHARS_MAX, cut, cut_json

START_TIMEOUT_S = 30.0
INTERRUPT_TIMEOUT_S = 5.0

_LOG = logging.getLogger(__name__)


async def open_claude(spec: BackendSpec, *, settings: ClaudeSettings, access: ModelAccess) -> "ClaudeBackend":
    """Start a CLI for a conversation. Takes about half a second; at most 30.

    Raises ``ModelKeyMissing`` without starting anything (but not where the user's own login counts), ``AgentMissing``,
    ``AgentStartFailed``, ``AgentStartTimedOut``, ``ResumeFailed``. Whatever was started is gone then, also when cancelled.
    """
    if access.api_key is None and settings.users is None:
        raise ModelKeyMissing
    backend = ClaudeBackend(spec, settings, access)
    await backend.start()
    return backend


class ClaudeBackend:
    """See :class:`~ff_core.sessions.backend.AgentBackend`. Made by :func:`open_claude`."""

    def __init__(self, spec: BackendSpec, settings: ClaudeSettings, access: ModelAccess) -> None:
        self._spec, self._settings = spec, settings
        users_key = (settings.users or {}).get("ANTHROPIC_API_KEY")
        self._secret = access.api_key.get_secret_value() if access.api_key else users_key
        self._transport = CliTransport(
            argv(spec, settings, access),
            env=environment(spec, settings, access),
            cwd=settings.cwd,
            run_as=settings.run_as,
        )
        options = ClaudeAgentOptions(
            can_use_tool=self._can_use_tool,
            # The transport has the arguments. Of the prompt only this travels in the handshake: a transcript must not
            # bring back the prompt of the day it was begun.
            system_prompt={"type": "preset", "preset": "claude_code", "snapshot": False},
        )
        self._client = ClaudeSDKClient(options, transport=self._transport)
        self._turn = Turn(spec.provider_session_id)
        self._closed: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the CLI."""
        return self._transport.pid

    async def start(self) -> None:
        """Start the CLI and shake hands; to be called once, by :func:`open_claude`."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._client.connect()
        except asyncio.CancelledError:
            await self.close()
            raise
        except Exception as error:
            await self.close()
            raise start_failure(error, self._transport.stderr, self._secret) from error

    async def facts(self) -> AsyncIterator[Fact]:
        """See the protocol."""
        while True:
            try:
                async for message in self._client.receive_messages():
                    for fact in translate(message, self._turn):
                        yield fact
                died = death(None, in_turn=False)
            except MessageParseError as error:
                # A word the SDK does not understand must not end the conversation: the stream goes on behind it.
                yield Noted(Notice(name="unreadable", message=cut(str(error), NOTICE_CHARS_MAX)[0]))
                continue
            except ClaudeSDKError as error:
                died = death(error, in_turn=self._turn.aborted)
            if self._closed is None:
                _LOG.warning("session %s: %s %s", self._spec.session_id, died.sentence, self._redacted_stderr())
                yield died
            return

    async def send(self, message_id: MessageId, text: str) -> None:
        """See the protocol."""
        prompt: dict[str, Any] = {
            "type": "user",
            "message": {"role": "user", "content": text},
            "parent_tool_use_id": None,
            "uuid": str(message_id),
        }

        async def once() -> AsyncIterator[dict[str, Any]]:
            yield prompt

        self._turn.interrupting = False
        self._turn.prompts.add(message_id)
        try:
            await self._client.query(once())
        except ClaudeSDKError as error:
            raise AgentGone from error

    async def interrupt(self) -> None:
        """See the protocol."""
        self._turn.interrupting = True
        try:
            async with asyncio.timeout(INTERRUPT_TIMEOUT_S):
                await self._client.interrupt()
        except Exception as error:  # the SDK raises bare ones here
            raise AgentGone from error

    async def close(self) -> None:
        """See the protocol. Interrupts first: a CLI in mid-turn does not leave by itself."""
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(), name="claude-close")
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        try:
            if self._transport.is_ready() and self._turn.prompts:
                await self.interrupt()
        except AgentGone:
            pass
        try:
            await self._client.disconnect()
        except Exception:  # noqa: BLE001  (an end must come to its end)
            _LOG.exception("session %s: the CLI was not closed in order", self._spec.session_id)
        await self._transport.close()
        await kill_strays(str(self._spec.session_id), self._settings.run_as)

    async def _can_use_tool(self, name: str, given: dict[str, Any], context: ToolPermissionContext) -> PermissionResult:
        call = ToolCall(
            tool_use_id=context.tool_use_id or "",
            name=name,
            input=given,
            workspace=PurePosixPath(self._settings.cwd),
            title=context.title or context.description or "",
            questions=_questions(cut_json(given)[0]) if name == QUESTION_TOOL else (),
            grants=_grants(name, context.suggestions),
        )
        match await self._spec.decide(call):
            case Deny(message):
                return PermissionResultDeny(message=message)
            case Allow(always, answers):
                return PermissionResultAllow(
                    updated_input={**given, "answers": answers} if answers else None,
                    updated_permissions=[PermissionUpdate.from_dict(dict(grant)) for grant in call.grants] if always else None,
                )

    def _redacted_stderr(self) -> str:
        text = self._transport.stderr
        return text.replace(self._secret, "…") if self._secret else text


def _questions(given: Mapping[str, Any]) -> tuple[Question, ...]:
    try:
        return tuple(
            Question(
                question=asked["question"],
                header=asked.get("header", ""),
                multi_select=asked.get("multiSelect", False),
                options=tuple(
                    Option(label=option["label"], description=option.get("description", ""))
                    for option in asked.get("options", ())
                ),
            )
            for asked in given["questions"]
        )
    except (KeyError, TypeError, AttributeError, ValidationError):
        return (Question(question=cut(str(given), NOTICE_CHARS_MAX)[0]),)


def _grants(name: str, suggestions: list[PermissionUpdate]) -> tuple[Json, ...]:
    """What "always" means. The CLI suggests several ways at once: rules for like calls are the narrowest.

    The destination is always the session: the CLI's own suggestion would write ``settings.local.json`` into the repository.
    """
    wire = [{**update.to_dict(), "destination": "session"} for update in suggestions]
    rules = [update for update in wire if update["type"] == "addRules"]
    if rules:
        return tuple(rules)
    modes = [update for update in wire if update["type"] == "setMode" and update["mode"] == "acceptEdits"]
    if modes:
        return tuple(modes)
    return ({"type": "addRules", "rules": [{"toolName": name}], "behavior": "allow", "destination": "session"},)

"""What a session needs of an agent, whichever it is: a protocol, and the closed set of facts that come out of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, Protocol

from ff_core.contract.base import Json
from ff_core.contract.events import EventBody, TurnFinished
from ff_core.contract.session import PermissionPreset, Question
from ff_core.ids import MessageId, SessionId, WorkspaceId


@dataclass(frozen=True)
class ToolCall:
    """The agent wants to use a tool and asks first."""

    tool_use_id: str
    name: str
    input: Json
    workspace: PurePosixPath
    """The agent's working folder."""
    title: str = ""
    questions: tuple[Question, ...] = ()
    """Not empty when the tool is a question to the user."""
    grants: tuple[Json, ...] = ()
    """In the agent's words, what to remember when the user says "always"."""


@dataclass(frozen=True)
class Allow:
    """Do it. ``always``: this and like calls, for the rest of the session. ``answers`` to a question, by its text."""

    always: bool = False
    answers: dict[str, str] | None = None


@dataclass(frozen=True)
class Deny:
    """Don't; the agent is told why. For a question: the user's answer in his own words."""

    message: str


Decision = Allow | Deny
Decide = Callable[[ToolCall], Awaitable[Decision]]
"""May take as long as the user does. Cancelled when the request is void: turn stopped, agent ended."""


@dataclass(frozen=True)
class BackendSpec:
    """Which conversation to open, and how."""

    workspace_id: WorkspaceId
    session_id: SessionId
    provider_session_id: str
    """The agent's own name for the conversation, a UUID."""
    resume: bool
    """The conversation exists: go on with it or fail with ``ResumeFailed``; never begin another. Else begin it."""
    model: str | None
    permissions: PermissionPreset
    decide: Decide
    grants: tuple[Json, ...] = field(default=())
    """What the user allowed for the rest of the session before this process was started."""


@dataclass(frozen=True)
class Noted:
    """Something for the journal."""

    body: EventBody


@dataclass(frozen=True)
class Hinted:
    """A piece of what the agent is writing."""

    text: str
    thinking: bool = False


@dataclass(frozen=True)
class HintsVoid:
    """The agent begins its reply (again): pieces hinted since the last stored event don't count."""


@dataclass(frozen=True)
class StateChanged:
    """Whether the agent is in a turn of its own or the user's; a wait for the user is part of a turn."""

    running: bool


@dataclass(frozen=True)
class BackgroundChanged:
    """How many of the agent's tasks run besides the conversation."""

    tasks: int


@dataclass(frozen=True)
class PromptSettled:
    """The agent is done with a prompt. Comes after the turn's own end and says something new only without one."""

    message_id: MessageId
    cancelled: bool


@dataclass(frozen=True)
class TurnEnded:
    """A turn ended; its prompts are named in the event."""

    body: TurnFinished


@dataclass(frozen=True)
class ConversationMoved:
    """The agent goes on under another name (the user cleared the conversation)."""

    provider_session_id: str


@dataclass(frozen=True)
class Died:
    """The agent's process ended though nobody asked it to. The last fact."""

    reason: Literal["killed", "exited", "broken"]
    code: str
    sentence: str
    clean: bool = False
    """It ended with success."""


Fact = Noted | Hinted | HintsVoid | StateChanged | BackgroundChanged | PromptSettled | TurnEnded | ConversationMoved | Died


class AgentBackend(Protocol):
    """One live agent process. Made by a factory that raises an ``FFError`` when the agent can't be started."""

    def facts(self) -> AsyncIterator[Fact]:
        """All that happens, in order, until the agent is closed or a :class:`Died`. To be read once, all the time."""
        ...

    async def send(self, message_id: MessageId, text: str) -> None:
        """Give a prompt. Raises ``AgentGone`` when nobody takes it; a ``Died`` fact follows. Never to be repeated."""
        ...

    async def interrupt(self) -> None:
        """Stop the turn; its end comes as a fact. Harmless without a turn. Raises ``AgentGone``."""
        ...

    async def close(self) -> None:
        """End the agent and everything it started, within some seconds. May be repeated. ``facts`` ends."""
        ...


Backends = Callable[[BackendSpec], Awaitable[AgentBackend]]

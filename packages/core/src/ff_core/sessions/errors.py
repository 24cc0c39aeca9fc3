"""What can go wrong with a session."""

from ff_core.errors import Conflict, FFError, InvalidInput, NotFound


class SessionUnknown(NotFound):
    """There is no such session."""


class SessionsMax(Conflict):
    """This workspace has as many open sessions as it may have; go on in one of them."""

    code = "sessions_max"


class SessionExists(Conflict):
    """A session with this id exists already and is a different one; leave the id away or choose another."""

    code = "session_exists"


class MessageExists(Conflict):
    """A prompt with this id was taken already and says something else; leave the id away or choose another."""

    code = "message_exists"


class QueueFull(Conflict):
    """Too many prompts wait in this session; let the agent answer some, or stop it."""

    code = "queue_full"
    status = 429


class RequestUnknown(NotFound):
    """The agent asked no such thing in this session."""


class RequestSettled(Conflict):
    """This was answered already, or its turn has ended."""

    code = "request_settled"


class AnswerUnfit(InvalidInput):
    """The answer does not fit the request."""

    code = "answer_unfit"


class ShuttingDown(Conflict):
    """The workspace is shutting down; try again in a moment."""

    code = "shutting_down"
    status = 503


class ModelKeyMissing(Conflict):
    """The agent has no key for the model. Set yours with `ff credential set anthropic_api_key`, then send your prompt again."""

    code = "model_key_missing"


class AgentMissing(FFError):
    """The agent's program is not installed in this workspace; rebuild the workspace's image."""

    code = "agent_missing"


class AgentStartFailed(FFError):
    """The agent's program ended while it was starting."""

    code = "agent_start_failed"
    status = 502


class AgentStartTimedOut(FFError):
    """The agent's program did not start in time; send your prompt again."""

    code = "agent_start_timed_out"
    status = 504


class ResumeFailed(Conflict):
    """The agent has no record of this conversation any more, so it can't go on here. Start a new session."""

    code = "resume_failed"


class AgentGone(FFError):
    """The agent's process is not there or does not answer."""

    code = "agent_gone"
    status = 502

"""What goes wrong with the model and the CLI, in plain sentences with a code. Pure."""

import re

from claude_agent_sdk import CLIJSONDecodeError, ResultError

from ff_core.claude.transport import CliExited
from ff_core.contract.base import ErrorView
from ff_core.errors import FFError
from ff_core.sessions.backend import Died
from ff_core.sessions.errors import AgentMissing, AgentStartFailed, AgentStartTimedOut, ModelKeyMissing, ResumeFailed
from ff_core.sessions.texts import clean

SAID_CHARS_MAX = 300

_BY_STATUS = {
    400: ("model_request_refused", "The model's API refused the request."),
    401: ("model_key_refused", "The model's API did not accept the key. Set a valid one: `ff credential set anthropic_api_key`."),
    402: ("model_billing", "The model's API asks for payment. Check the account of the key, then try again."),
    403: ("model_forbidden", "The key may not use this model or API. Use another key or model."),
    404: ("model_unknown", "The model's API does not know this model. Choose another one in a new session."),
    413: ("model_request_too_large", "The request is too large for the model's API. Start a new session, or send less."),
    429: ("model_rate_limited", "The model's API limits how much this key may ask for now. Try again later."),
    529: ("model_overloaded", "The model's API is overloaded. Try again in a few minutes."),
}
_BROKEN = ("model_failed", "The model's API failed. Try again in a few minutes.")
_UNREACHABLE = ("model_unreachable", "The model's API can't be reached. Check the network and the API's address.")
_TOO_LONG = r"prompt is too long|context (?:window|limit)"
_BY_TEXT = (
    (
        r"not logged in|invalid api key.*/login|please run /login",
        (
            "model_key_missing",
            "The agent has no key for the model. On your own machine run `claude` and log in, then try again.",
        ),
    ),
    (
        _TOO_LONG,
        ("prompt_too_long", "The conversation is too long for the model. Send /compact, or start a new session."),
    ),
    (r"unable to connect|connection (?:error|refused|reset)|econn|fetch failed|timed? ?out|enotfound", _UNREACHABLE),
)
_NO_KEY_SAID = "has no key for the model"
"""In the gateway's refusal, when neither the user nor the server has one."""
_SAYS_ALL = {401, 429, 529}
"""Where the API's own words add nothing for the user."""


def api_error(status: int | None, text: str) -> ErrorView:
    """Why a turn failed: the HTTP status of the model's API where there was one, and what the CLI says."""
    if status == 401 and _NO_KEY_SAID in text:
        return ErrorView(code=ModelKeyMissing.code, message=ModelKeyMissing().detail)
    if status is not None and not re.search(_TOO_LONG, text, re.IGNORECASE):
        code, sentence = _BY_STATUS.get(status, _BROKEN)
        words = re.sub(r"^.*?API Error:? ?(?:\d{3} ?)?", "", text.strip(), flags=re.DOTALL)[:SAID_CHARS_MAX]
        said = "" if status in _SAYS_ALL or not words else f" It says: {words}"
        return ErrorView(code=code, message=sentence + said)
    for pattern, (code, sentence) in _BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            return ErrorView(code=code, message=sentence)
    said = f" It says: {text.strip()[:SAID_CHARS_MAX]}" if text.strip() else ""
    return ErrorView(code="agent_stopped", message=f"The agent stopped before it was done.{said}")


def retrying(status: int | None, delay_ms: int) -> str:
    """What the user reads while the agent asks the model again by itself."""
    reasons = {
        401: "The model's API did not accept the key",
        429: "The model's API limits how much this key may ask for",
        529: "The model's API is overloaded",
    }
    reason = reasons.get(status or 0) or (
        f"The model's API failed (HTTP {status})" if status else "The connection to the model's API failed"
    )
    return f"{reason}; the agent tries again in {delay_ms / 1000:.1f} s."


def death(error: BaseException | None, *, in_turn: bool) -> Died:
    """The fact for a CLI that is gone, from what its reader raised; ``in_turn``: it gave up a turn before."""
    exited = error if isinstance(error, CliExited) else getattr(error, "__cause__", None)
    if isinstance(exited, CliExited) and exited.exit_code is not None:
        status = exited.exit_code
        signal_number = -status if status < 0 else status - 128 if status > 128 else 0
        if signal_number == 9:
            return Died("killed", "agent_died", _then("The agent was killed, perhaps because memory ran out."))
        if signal_number > 0:
            return Died("killed", "agent_died", _then(f"The agent was ended by signal {signal_number}."))
        return Died(
            "exited", "agent_died", _then(f"The agent ended by itself (exit status {status})."), clean=status == 0 and not in_turn
        )
    if isinstance(error, CLIJSONDecodeError):
        return Died("broken", "agent_died", _then("The agent sent something that can't be understood and was ended."))
    return Died("broken", "agent_died", _then("The connection to the agent broke."))


def start_failure(error: BaseException, stderr: str, secret: str | None) -> FFError:
    """Why the CLI could not be started, from what connecting raised."""
    said = clean(" ".join(part for part in (str(error) if isinstance(error, ResultError) else "", stderr) if part)).strip()
    if secret:
        said = said.replace(secret, "…")
    if isinstance(error, FileNotFoundError | PermissionError):
        return AgentMissing(
            f"The agent's program can't be run ({error.strerror}); install Claude Code, or rebuild the workspace's image."
        )
    if "No conversation found" in said:
        return ResumeFailed()
    if isinstance(error, TimeoutError):
        return AgentStartTimedOut()
    reason = f" It says: {said[-SAID_CHARS_MAX:]}" if said else ""
    return AgentStartFailed(f"The agent's program ended while it was starting.{reason}")


def _then(sentence: str) -> str:
    return f"{sentence} The conversation is kept: your next prompt goes on with it."

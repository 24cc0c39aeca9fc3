"""What the model was used for, as the gateway counted it."""

from datetime import date, datetime
from typing import Literal

from ff_core.contract.base import View
from ff_core.contract.events import Usage
from ff_core.ids import SessionId, WorkspaceId


class UsageView(View):
    """The requests of one day (UTC), workspace and model taken together. The workspace may be gone by now.

    ``cost_micro_usd`` is in millionths of a US dollar, by list prices; null when the price of the model is not known.
    """

    day: date
    workspace_id: WorkspaceId
    model: str
    requests: int
    input_tokens: int
    """Neither read from the cache nor written to it."""
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_micro_usd: int | None


class TurnView(View):
    """One turn of a session and what it took, as the agent counted it; ``seq`` is that of its ``turn.finished`` event."""

    workspace_id: WorkspaceId
    seq: int
    session_id: SessionId | None
    at: datetime
    outcome: Literal["done", "interrupted", "failed"]
    usage: Usage
    cost_usd: float | None
    duration_ms: int

"""What the model was used for, as the gateway counted it."""

from datetime import date

from ff_core.contract.base import View
from ff_core.ids import WorkspaceId


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

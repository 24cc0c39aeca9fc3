"""What a request costs by list price. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from ff_cloud.gateway.metering import Spent

CACHE_READ = 0.1
CACHE_WRITE = 1.25
CACHE_WRITE_LONG = 2.0
"""Factors on the price of input: read from the cache, written to it for five minutes, and for an hour."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, which is micro-dollars per token."""

    input: float
    output: float


LIST: Mapping[str, Price] = {
    "claude-opus-4-5": Price(5, 25),
    "claude-opus-4-1": Price(15, 75),
    "claude-opus-4": Price(15, 75),
    "claude-sonnet-4-5": Price(3, 15),
    "claude-sonnet-4": Price(3, 15),
    "claude-haiku-4-5": Price(1, 5),
    "claude-3-7-sonnet": Price(3, 15),
    "claude-3-5-sonnet": Price(3, 15),
    "claude-3-5-haiku": Price(0.8, 4),
}
"""Names of models without the date at their end. Those that are not here cost an unknown amount: never a guessed one."""


def cost_micro_usd(spent: Spent, more: Mapping[str, Price] | None = None) -> int | None:
    """The cost in millionths of a dollar; None when the price is not known. ``more`` wins over :data:`LIST`."""
    price = price_of(spent.model, {**LIST, **(more or {})})
    if price is None:
        return None
    long = min(spent.cache_write_long_tokens, spent.cache_write_tokens)
    as_input = (
        spent.input_tokens
        + spent.cache_read_tokens * CACHE_READ
        + (spent.cache_write_tokens - long) * CACHE_WRITE
        + long * CACHE_WRITE_LONG
    )
    return round(as_input * price.input + spent.output_tokens * price.output)


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of a model by its name, with or without a date such as ``-20250929`` at the end."""
    name, _, date = model.rpartition("-")
    if model in prices:
        return prices[model]
    return prices.get(name) if len(date) == 8 and date.isdecimal() else None

"""Lists come in pages with a cursor."""

from typing import Generic, TypeVar

from ff_core.contract.base import View

T = TypeVar("T")

PAGE_ITEMS_DEFAULT = 50
PAGE_ITEMS_MAX = 200


class Page(View, Generic[T]):
    """One page. ``next_cursor`` is null on the last one; pass it as ``cursor`` to get the next."""

    items: tuple[T, ...]
    next_cursor: str | None = None

"""What is known of this installation: names with values, each decided once. Nobody else writes this table."""

from collections.abc import Callable

from ff_core.store.engine import Tx

DESKTOP_ID = "desktop_id"


def settled(tx: Tx, name: str, make: Callable[[], str]) -> str:
    """The value of that name; made when it is asked for the first time."""
    row = tx.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return str(row["value"])
    value = make()
    tx.execute("INSERT INTO facts (name, value) VALUES (?, ?)", (name, value))
    return value

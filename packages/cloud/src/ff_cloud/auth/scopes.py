"""What a login may do. Pure."""

from ff_core.contract.account import Scope

SESSION_SCOPES = frozenset(Scope) - {Scope.ADMIN}
"""What every login may do: everything that concerns its own account."""


def granted(bound: frozenset[Scope] | None, *, is_admin: bool) -> frozenset[Scope]:
    """What a credential may do that is bound to ``bound`` (None: not bound), of a user who is an administrator or not.

    Asked at every request, so whoever ceases to be an administrator loses the scope at once, in old credentials too.
    """
    may = frozenset(Scope) if is_admin else SESSION_SCOPES
    return may if bound is None else may & bound

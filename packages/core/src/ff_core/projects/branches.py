"""Which branch a new worktree is on, and from which commit it begins (DOMAIN.md section 6). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.errors import FFError
from ff_core.git.errors import BranchNotFound
from ff_core.git.local import TRACKED, Fetched, Refs
from ff_core.projects.errors import BranchCheckedOut


@dataclass(frozen=True)
class Facts:
    """What was found out: ``fetched`` is how the fetch of the branch in question ended, ``refs`` are as after it."""

    refs: Refs
    checked_out: Mapping[str, Path]
    fetched: Fetched | FFError

    @property
    def taken(self) -> set[str]:
        """Names that a new branch must not have."""
        return {*self.refs.heads, *self.refs.tracked, *self.checked_out}

    @property
    def empty(self) -> bool:
        """There is no commit yet."""
        return not (self.refs.heads or self.refs.tracked)


@dataclass(frozen=True)
class Plan:
    """What is to be checked out."""

    branch: str
    new_at: str | None = None
    """The commit that the branch is made at; None: it is there already, or begins without a commit."""
    upstream: str | None = None
    """What the new branch follows."""
    empty: bool = False
    advance: tuple[str, str] | None = None
    """The branch goes on from the first commit to the second, before it is checked out."""
    notes: tuple[str, ...] = ()
    """For the user: what was not as he may think."""


def new_branch(facts: Facts, *, base: str, branch: str, default: str) -> Plan:
    """A new ``branch`` from ``base``: as the remote has it now, else as it is here, else as the remote had it.

    From a branch without commits begins another one: such as the ``default`` branch of an empty repository. Raises
    ``BranchNotFound`` when there is no ``base``.
    """
    fetched, here, before = facts.fetched is Fetched.DONE, facts.refs.heads.get(base), facts.refs.tracked.get(base)
    if fetched and before is not None:
        return Plan(branch, new_at=before)
    reason = _missed(facts.fetched, base)
    if here is not None:
        notes = (f"{reason}; starting from the local branch {base!r} as it is here.",) if reason else ()
        return Plan(branch, new_at=here, notes=notes)
    if before is not None:
        notes = (f"{reason}; starting from the last known origin/{base}.",) if reason else ()
        return Plan(branch, new_at=before, notes=notes)
    if base in facts.checked_out or (facts.empty and base == default):  # it is there, and has no commit yet
        return Plan(branch, empty=True, notes=(f"{reason}.",) if reason else ())
    raise _not_found(base, reason)


def known_branch(facts: Facts, branch: str, *, behind: bool) -> Plan:
    """Go on with ``branch``. ``behind``: all that it has here, the remote has too, and more: then it goes on from there.

    Raises ``BranchCheckedOut`` and ``BranchNotFound``.
    """
    if branch in facts.checked_out:
        raise BranchCheckedOut(
            f"The branch {branch!r} is checked out in {facts.checked_out[branch]}; a branch can be worked on in one place only."
        )
    here, remote = facts.refs.heads.get(branch), facts.refs.tracked.get(branch)
    reason = _missed(facts.fetched, branch)
    if here is None and remote is None:
        raise _not_found(branch, reason)
    if here is None:
        notes = (f"{reason}; it begins at the last known origin/{branch}.",) if reason else ()
        return Plan(branch, new_at=remote, upstream=f"{TRACKED}{branch}", notes=notes)
    if remote is None or remote == here:
        return Plan(branch, notes=(f"{reason}; the branch {branch!r} is as it is here.",) if reason and remote else ())
    if behind:
        return Plan(branch, advance=(here, remote), notes=(f"The branch {branch!r} was brought up to origin/{branch}.",))
    return Plan(branch, notes=(f"The branch {branch!r} differs from origin/{branch}; it is left as it is here.",))


def _not_found(branch: str, reason: str) -> BranchNotFound:
    return BranchNotFound(f"The project has no branch {branch!r}, neither here nor at its remote. {reason}.".removesuffix(" ."))


def _missed(fetched: Fetched | FFError, branch: str) -> str:
    """Why what the remote has is not known; empty when it is, or when there is no remote."""
    match fetched:
        case Fetched.DONE | Fetched.NO_REMOTE:
            return ""
        case Fetched.NO_SUCH_BRANCH:
            return f"The remote has no branch {branch!r}"
        case FFError(detail=detail):
            return f"The remote could not be asked ({detail.rstrip('.')})"

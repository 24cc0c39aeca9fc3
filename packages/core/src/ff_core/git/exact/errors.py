"""What keeps the exact state of a repository from being read, or made again."""

from ff_core.errors import Conflict, FFError, TimedOut


class UnmergedIndex(Conflict):
    """A merge left conflicts in this repository; resolve them and `git add` the files, then try again."""

    code = "unmerged_index"


class OperationInProgress(Conflict):
    """A merge, rebase, cherry-pick, revert or bisect is in progress in this repository; finish or abort it, then try again."""

    code = "operation_in_progress"


class IndexLocked(Conflict):
    """Another git command works in this repository; wait until it has ended. If none does, remove its file index.lock."""

    code = "index_locked"


class FilterDriverMissing(Conflict):
    """Files pass through a filter of git's that the other side lacks; put their stored form in their place first."""

    code = "filter_driver_missing"


class RepositoryUnsupported(Conflict):
    """This repository uses something of git's that can't be carried elsewhere yet."""

    code = "repository_unsupported"


class HistoryIncomplete(Conflict):
    """This repository lacks parts of its own history, so it can't be sent whole; get them with `git fetch --refetch` first."""

    code = "history_incomplete"


class BaseMissing(FFError):
    """The receiver lacks commits that this builds on: the remote changed. Try again, or send the whole history (--whole)."""

    code = "base_missing"
    status = 409


class StateBroken(FFError):
    """What came can't be the state of a repository, so nothing of it was used."""

    code = "state_broken"
    status = 422


class GitTimedOut(TimedOut):
    """Git did not end in time and was stopped; try again when the machine is less busy."""

    code = "git_timed_out"

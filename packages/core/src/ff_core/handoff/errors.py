"""What can go wrong when a workspace is packed, moved and unpacked."""

from ff_core.errors import Conflict, FFError


class BundleBroken(FFError):
    """The bundle is damaged or incomplete, so nothing of it was used. Move the workspace again."""

    code = "bundle_broken"
    status = 422


class BundleTooNew(BundleBroken):
    """The bundle was made by a newer version of this program; update this one, then try again."""

    code = "bundle_too_new"


class BundleTooLarge(BundleBroken):
    """The workspace is too large to be moved. Delete large files in it, or have git ignore those that can be made again."""

    code = "bundle_too_large"
    status = 413


class ChangedWhilePacking(Conflict):
    """A file changed while the workspace was packed; try again when nothing else works in it."""

    code = "changed_while_packing"


class RecordsBroken(FFError):
    """What a bundle says of sessions and events does not fit together; nothing of it is used. Move the workspace again."""

    code = "records_broken"
    status = 422


class JournalDiverged(Conflict):
    """This workspace went on in two places: the events known here are not those that came. Nothing was changed."""

    code = "journal_diverged"


class TurnRunning(Conflict):
    """An agent is in the middle of a turn in this workspace; wait until it is done (--wait) or stop it (--interrupt)."""

    code = "turn_running"


class FixerActive(Conflict):
    """A ratchet fixer is active in this workspace; wait or stop the fixer, then move the workspace."""

    code = "fixer_active"


class CommandRunning(Conflict):
    """A command runs in this workspace; wait until it has ended, then move the workspace."""

    code = "command_running"


class HandoffUnknown(Conflict):
    """Nothing of this handoff is here; begin it again."""

    code = "handoff_unknown"


class StaleEpoch(Conflict):
    """This workspace has been moved since; see where it is now with: ff ls"""

    code = "stale_epoch"


class TranscriptsDiffer(FFError):
    """The conversations that lie here now are not those that came; the workspace stays where it was. Move it again."""

    code = "transcripts_differ"


class TrackedFileUnreadable(Conflict):
    """A file that git tracks can't be read, so it can't travel; give yourself the right to read it, then try again."""

    code = "tracked_file_unreadable"


class FingerprintDiffers(FFError):
    """What arrived is not what was sent, so it was thrown away; the workspace stays where it was. Try again, and tell us."""

    code = "fingerprint_differs"
    status = 422


class HandoffDiskFull(FFError):
    """The disk is full, so the workspace was not moved and nothing was kept. Free some space, then try again."""

    code = "handoff_disk_full"
    status = 507


class HandoffFailed(FFError):
    """The workspace could not be packed or unpacked; it stays where it was. The log has the details."""

    code = "handoff_failed"


class WorktreeChanged(Conflict):
    """The worktree has changed while the workspace came back into it; nothing of that is overwritten."""

    code = "worktree_changed"


class LandingPlaceTaken(Conflict):
    """Something else is where the new worktree was to be made."""

    code = "landing_place_taken"


class UnpackedAlready(Conflict):
    """There is something already where this should be unpacked; remove it first."""

    code = "unpacked_already"


class TreeTooDeep(Conflict):
    """Folders lie in folders too deep in this workspace, or there are too many files; have git ignore what can be made again."""

    code = "tree_too_deep"


class HandoffBusy(Conflict):
    """Another process packs or unpacks this workspace at the moment; wait until it is done."""

    code = "handoff_busy"


class HandoffTimedOut(HandoffFailed):
    """The workspace could not be packed or unpacked in time, and stays where it was. Try again when the machine is less busy."""

    code = "handoff_timed_out"
    status = 504

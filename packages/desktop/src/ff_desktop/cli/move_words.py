"""What a move would take along, how far it is, and its receipt, as lines for people. Pure."""

from collections.abc import Iterable

from ff_core.contract.handoff import Contents, Fingerprint, LeftBehind, Receipt, RepositoryPrint
from ff_core.contract.local import HandoffPlan, LocalHandoff, LocalStatus
from ff_core.contract.places import Direction
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.render import ASK, BAD, DIM, GOOD
from ff_desktop.cli.screen import Line

LEFT_LINES_MAX = 20
PATH_CHARS_MAX = 300
HASH_CHARS = 12
_UNITS = ("B", "kB", "MB", "GB", "TB")
REASONS = {
    "ignored": "ignored by git, and no rule includes it",
    "special": "a pipe, socket or device",
    "unreadable": "it can't be read",
    "credential": "looks like a credential, and nobody said yes",
    "temporary": "a temporary file",
    "other_filesystem": "on another file system",
    "worktree": "the working tree of a repository that is elsewhere",
    "name": "some file systems take its name for git's own",
}


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def plan_lines(plan: HandoffPlan) -> list[Line]:
    """What a send would take along, what stays, and what stands in the way."""
    shown = [Line(f"{one_line(plan.name)}: {summary(plan.contents)}", "bold")]
    if plan.contents.whole:
        shown.append(Line("  with all of its history, for the cloud fetches none of it elsewhere", DIM))
    shown += contents_lines(plan.contents)
    if plan.credentials:
        shown.append(Line("  these look like credentials, and travel only with a yes (--credentials):", ASK))
        shown += [Line(f"    {one_line(path, PATH_CHARS_MAX)}", ASK) for path in plan.credentials[:LEFT_LINES_MAX]]
        shown += _more(len(plan.credentials) - LEFT_LINES_MAX)
    shown += [Line(f"  refused: {one_line(error.message, 500)} ({one_line(error.code)})", BAD) for error in plan.refusals]
    return shown


def summary(contents: Contents) -> str:
    """The numbers that are not zero."""
    counts = (
        (contents.commits, "commit", "commits"),
        (contents.files, "changed file", "changed files"),
        (contents.deleted, "deletion", "deletions"),
        (contents.stashes, "stash entry", "stash entries"),
        (contents.submodules, "submodule", "submodules"),
        (contents.sessions, "conversation", "conversations"),
        (contents.queued, "queued prompt", "queued prompts"),
    )
    told = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
    return f"{', '.join(told) or 'nothing that the other side lacks'} ({size(contents.file_bytes)} of files)"


def contents_lines(contents: Contents) -> list[Line]:
    """What travels by rule, and what is left behind with the reason."""
    shown = [Line(f"  included by rule: {one_line(path, PATH_CHARS_MAX)}") for path in contents.included[:LEFT_LINES_MAX]]
    shown += _more(len(contents.included) - LEFT_LINES_MAX)
    shown += [_left(each) for each in contents.left_behind[:LEFT_LINES_MAX]]
    return shown + _more(contents.left_behind_count - min(len(contents.left_behind), LEFT_LINES_MAX))


def receipt_lines(receipt: Receipt) -> list[Line]:
    """Both fingerprints side by side, and what was left behind."""
    way = "sent to the cloud" if receipt.direction is Direction.SEND else "pulled to this desktop"
    when = f"{receipt.committed_at:%Y-%m-%d %H:%M:%S} UTC"
    verdict = Line("  both sides are equal: nothing was lost", GOOD) if receipt.equal else Line("  the two sides differ", BAD)
    return [
        Line(f"{one_line(receipt.name)}: {way} at {when}, its move number {receipt.epoch}", "bold"),
        Line(f"  {summary(receipt.contents)}"),
        Line(f"  bundle: {size(receipt.bundle_bytes)}, sha256 {receipt.bundle_sha256}", DIM),
        *_prints("sent", receipt.sent),
        *_prints("arrived", receipt.arrived),
        verdict,
        *contents_lines(receipt.contents),
    ]


def done_lines(handoff: LocalHandoff) -> list[Line]:
    """How a move ended."""
    name = one_line(handoff.name)
    if handoff.status is LocalStatus.ABORTED:
        return [Line(f"{name}: aborted; it stays where it was", BAD)]
    receipt = handoff.receipt
    facts = ""
    if receipt is not None:
        facts = (
            f": {summary(receipt.contents)} in {size(receipt.bundle_bytes)}, receipt {'equal' if receipt.equal else 'DIFFERS'}"
        )
    if handoff.direction is Direction.SEND:
        shown = [Line(f"{name} lives in the cloud now{facts}", GOOD)]
    else:
        shown = [Line(f"{name} lives on this desktop now{facts}", GOOD)]
        if handoff.landed_at is not None:
            shown.append(Line(f"  in {one_line(handoff.landed_at, PATH_CHARS_MAX)}"))
    return shown + ([Line(f"  {one_line(handoff.advice, 2000)}", ASK)] if handoff.advice else [])


def where(handoff: LocalHandoff) -> str:
    """How far it is, in few words."""
    if handoff.total_bytes:
        return f"{handoff.detail} {size(handoff.done_bytes)} of {size(handoff.total_bytes)}"
    if handoff.status is LocalStatus.STOPPED and handoff.error is not None:
        return f"{handoff.error.message} ({handoff.detail})"
    return handoff.detail or (handoff.error.message if handoff.error is not None else "")


def _left(each: LeftBehind) -> Line:
    bytes_of = f", {size(each.size)}" if each.size is not None else ""
    return Line(f"  stays: {one_line(each.path, PATH_CHARS_MAX)} ({REASONS.get(each.reason, each.reason)}{bytes_of})", DIM)


def _more(count: int) -> list[Line]:
    return [Line(f"  … and {count} more", DIM)] if count > 0 else []


def _prints(word: str, fingerprint: Fingerprint) -> Iterable[Line]:
    for repository in fingerprint.repositories:
        yield Line(f"  {word}: {_print(repository)}", DIM)
    records = f"records {fingerprint.records[:HASH_CHARS]}, conversations {len(fingerprint.conversations)}"
    yield Line(f"  {word}: {records}", DIM)


def _print(repository: RepositoryPrint) -> str:
    head = repository.head[:HASH_CHARS] if repository.head else "no commit yet"
    parts = (
        f"{one_line(repository.path)}/" if repository.path else "repository",
        f"{one_line(repository.branch)} at {head}" if repository.branch else f"detached at {head}",
        f"index {repository.index[:HASH_CHARS]}",
        f"tree {repository.tree[:HASH_CHARS]} of {repository.files} files",
        f"stash {repository.stash[:HASH_CHARS]}",
        f"status {repository.status[:HASH_CHARS]}",
    )
    return ", ".join(parts)

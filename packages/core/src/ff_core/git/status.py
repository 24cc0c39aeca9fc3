"""What a working tree looks like: ``git status`` read into numbers."""

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from ff_core.git.errors import GitFailed, explain
from ff_core.git.run import Git

STATUS_TIMEOUT_S = 60.0
STATUS_BYTES_MAX = 32 << 20


class GitStatus(BaseModel):
    """Branch and counts of changed paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    branch: str | None
    """None when HEAD is detached."""
    head: str | None
    """The commit; None before the first one."""
    upstream: str | None
    ahead: NonNegativeInt
    """Commits that the upstream lacks."""
    behind: NonNegativeInt
    staged: NonNegativeInt
    """Paths that differ between HEAD and the index."""
    unstaged: NonNegativeInt
    """Tracked paths that differ between the index and the working tree; one path may count as staged too."""
    untracked: NonNegativeInt
    conflicted: NonNegativeInt

    @property
    def clean(self) -> bool:
        """Nothing to commit and nothing unknown."""
        return not (self.staged or self.unstaged or self.untracked or self.conflicted)


async def status(git: Git) -> GitStatus:
    """Look at the working tree; takes no lock and changes nothing."""
    done = await git.run(
        *("status", "--porcelain=v2", "--branch", "-z", "--untracked-files=all", "--no-renames"),
        timeout_s=STATUS_TIMEOUT_S,
        output_bytes_max=STATUS_BYTES_MAX,
    )
    if done.exit_code != 0:
        raise explain(done.exit_code, done.stderr.decode(errors="replace"))
    if done.truncated:
        raise GitFailed("The working tree has more changed paths than can be listed; ignore or remove some.")
    return parse_status(done.stdout)


def parse_status(output: bytes) -> GitStatus:
    """Read the output of ``git status --porcelain=v2 --branch -z``. Pure."""
    headers: dict[str, str] = {}
    staged = unstaged = untracked = conflicted = 0
    entries = iter(output.split(b"\0"))
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        match kind:
            case b"#":
                name, _, value = rest.decode(errors="surrogateescape").partition(" ")
                headers[name] = value
            case b"1" | b"2":
                staged += rest[0:1] != b"."
                unstaged += rest[1:2] != b"."
                if kind == b"2":
                    next(entries, None)  # the path it was renamed from
            case b"u":
                conflicted += 1
            case b"?":
                untracked += 1
            case _:
                pass
    branch, head = headers.get("branch.head"), headers.get("branch.oid")
    ahead, _, behind = headers.get("branch.ab", "+0 -0").partition(" ")
    return GitStatus(
        branch=None if branch == "(detached)" else branch,
        head=None if head == "(initial)" else head,
        upstream=headers.get("branch.upstream"),
        ahead=abs(int(ahead)),
        behind=abs(int(behind)),
        staged=staged,
        unstaged=unstaged,
        untracked=untracked,
        conflicted=conflicted,
    )

"""Which commits two repositories have in common, so that they need not travel: asked of the remote, or told of this one."""

import os

from ff_core.git.errors import CloneTimedOut, GitFailed, explain
from ff_core.git.local import HEADS, ORIGIN
from ff_core.git.run import Git
from ff_core.process import ProgramTimedOut

LISTING_TIMEOUT_S = 20.0
LISTING_BYTES_MAX = 32 << 20
RECENT_COMMITS = 200
"""Of the workspace's own branch, so that a branch that was rewritten elsewhere still has much in common."""


async def remote_tips(git: Git, *, timeout_s: float = LISTING_TIMEOUT_S) -> tuple[str, ...]:
    """Commits of this repository that are tips of branches or tags of ``origin`` now, asked of it as the user would.

    Raises ``CloneTimedOut``, or what git says of the network.
    """
    try:
        listed = await git.run(
            *("ls-remote", "--quiet", "--heads", "--tags", "--", ORIGIN),
            timeout_s=timeout_s,
            output_bytes_max=LISTING_BYTES_MAX,
        )
    except ProgramTimedOut as error:
        raise CloneTimedOut(f"The git server did not answer within {timeout_s:g} s.") from error
    if listed.exit_code != 0:
        raise explain(listed.exit_code, listed.stderr.decode(errors="replace"))
    if listed.truncated:
        raise GitFailed("The remote has more branches and tags than can be listed.")
    names = {line.partition(b"\t")[0] for line in listed.stdout.split(b"\n") if b"\t" in line}
    return await _commits_here(git, sorted(names))


async def known_commits(git: Git, branch: str | None, *, limit: int) -> tuple[str, ...]:
    """Commits of which this repository has everything, those first that are most likely to be known elsewhere: at most ``limit``.

    None of them when its history is incomplete (a shallow or partial clone): then nothing can be built on any of them.
    """
    shallow = await git.text("rev-parse", "--is-shallow-repository")
    if shallow != "false" or await git.setting("extensions.partialClone") is not None:
        return ()
    asked = ["for-each-ref", f"--count={limit}", "--sort=-committerdate", "--format=%(objectname) %(objecttype)"]
    tips = await git.run(*asked, HEADS, "refs/remotes/", output_bytes_max=LISTING_BYTES_MAX)
    if tips.exit_code != 0:
        raise explain(tips.exit_code, tips.stderr.decode(errors="replace"))
    found = [line.partition(" ")[0] for line in os.fsdecode(tips.stdout).split("\n") if line.endswith(" commit")]
    if branch is not None:
        recent = await git.run("rev-list", f"--max-count={RECENT_COMMITS}", f"{HEADS}{branch}", "--")
        own = os.fsdecode(recent.stdout).split() if recent.exit_code == 0 else []
        found = [*own, *found]
    return tuple(dict.fromkeys(found))[:limit]


async def _commits_here(git: Git, names: list[bytes]) -> tuple[str, ...]:
    if not names:
        return ()
    done = await git.run(
        *("cat-file", "--batch-check=%(objectname) %(objecttype)"),
        stdin=b"\n".join(names) + b"\n",
        output_bytes_max=LISTING_BYTES_MAX,
    )
    if done.exit_code != 0:
        raise explain(done.exit_code, done.stderr.decode(errors="replace"))
    return tuple(line.partition(" ")[0] for line in done.stdout.decode().split("\n") if line.endswith(" commit"))

"""Send to Cloud and Pull from Cloud, everything real but the model: what a person types, and what he must find.

The laptop is ``ff serve`` with a home of its own, the cloud a server with VMs in Docker. What is compared is what git and the
shell show on both sides, byte for byte.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from api_user import PASSWORD, new_id
from nasty import COMMANDS, POINTER, Repo, Seen, base_files, make_nasty, seen_here
from stack import Stack
from terminal import Terminal

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

LARGE = "seq 1 12000"
"""A command whose output Claude keeps in a file beside the transcript."""


@asynccontextmanager
async def laptop(stack: Stack, home: Path, email: str | None = None) -> AsyncIterator[Terminal]:
    """A desktop whose user is logged in; its ``ff serve`` is gone afterwards."""
    more = {
        "ANTHROPIC_BASE_URL": stack.model.url,
        "ANTHROPIC_API_KEY": "sk-ant-of-the-laptop",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "protocol.file.allow",
        "GIT_CONFIG_VALUE_0": "always",
        "FF_ALLOW_PLAIN_HTTP": "1",
        "IS_SANDBOX": "1",  # tests run as root, whom Claude lets skip permissions only then
    }
    terminal = Terminal(home, more)
    (home / ".gitconfig").write_text("[user]\n\tname = Me\n\temail = me@example.com\n[init]\n\tdefaultBranch = main\n")
    login = ("login", "--server", stack.url, "--email", email or f"{new_id().hex[-12:]}@example.com", "--password-stdin")
    await terminal.ff(*login, *([] if email else ["--signup"]), stdin=PASSWORD.encode())
    try:
        yield terminal
    finally:
        with contextlib.suppress(AssertionError):
            await terminal.ff("serve", "--stop")


async def email_of(terminal: Terminal) -> str:
    return str((await terminal.json("whoami"))["user"]["email"])


async def seen_there(terminal: Terminal, name: str) -> Seen:
    """The workspace through a shell in the cloud."""
    return Seen(**{what: await terminal.raw("exec", name, "--", *argv) for what, argv in COMMANDS.items()})


def without(seen: Seen, *folders: bytes) -> Seen:
    """Without what was said to stay behind."""
    hidden = tuple(b"./" + folder for folder in folders)
    lines = [line for line in seen.files.splitlines() if not bytes.fromhex(line.split()[0].decode()).startswith(hidden)]
    return Seen(seen.status, seen.stashes, seen.submodules, b"".join(line + b"\n" for line in lines))


async def worktree(terminal: Terminal, name: str, *more: str) -> Repo:
    made = await terminal.json("new", name, *more)
    assert (made["status"], made["location"]) == ("READY", "DESKTOP"), made
    return Repo(Path(made["path"]))


async def project(terminal: Terminal, url: str, name: str, *more: str) -> Path:
    folder = terminal.home / name
    await online(Repo(terminal.home), "clone", "-q", url, str(folder))
    await terminal.ff("project", "add", str(folder), *more)
    return folder


async def online(repo: Repo, *words: str) -> None:
    """Git that talks to the git server, which runs in this process."""
    await asyncio.to_thread(repo.git, *words)


def prompts_in(stack: Stack) -> str:
    """All that the model was asked last."""
    return json.dumps([one.body for one in stack.model.requests if one.kind == "main"][-1])


async def test_a_nasty_worktree_goes_to_the_cloud_and_back_and_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    tag = new_id().hex[-8:]
    library = await stack.git.create(f"library-{tag}", {"lib.c": "int lib;\n"})
    url = await stack.git.create(f"nasty-{tag}", base_files())
    async with laptop(stack, tmp_path / "laptop") as home:
        main = Repo(await project(home, url, "project", "--include", ".env"))
        await online(main, "submodule", "--quiet", "add", library, "vendor/library")
        main.git("commit", "-qm", "A library")
        await online(main, "push", "-q")
        repo = await worktree(home, "friday")
        await online(repo, "submodule", "--quiet", "update", "--init")
        await online(repo, "push", "-q", "--set-upstream", "origin", "HEAD")
        inner = Repo(repo.path / "vendor/library")
        inner.write("lib.c", "int lib = 1;\n")
        inner.commit("Unpushed in the library")
        inner.write("lib.c", "int lib = 2;\n")
        make_nasty(repo)
        said = await home.ff(
            "say", "friday", f"remember the heron\n%bash {LARGE}\n%task %say subagent saw an otter|%say done\n%say Noted.",
            "--wait", "--permissions", "YOLO",
        )  # fmt: skip
        assert "Noted." in said

        plan = await home.json("send", "friday", "--plan")
        assert plan["contents"]["included"] == [".env"]
        assert {"node_modules/", "build/"} <= {one["path"] for one in plan["contents"]["left_behind"]}
        assert plan["refusals"] == []
        here = without(seen_here(repo.path), b"node_modules", b"build")
        assert (repo.path / "art.psd").read_bytes() == POINTER
        await home.ff("send", "friday", "--yes", limit_s=150)

        assert "CLOUD" in await home.ff("ls")
        there = await seen_there(home, "friday")
        assert there == here
        assert await home.ff("exec", "friday", "--", "cat", ".env") == "SECRET=of-the-user\n"
        assert seen_here(repo.path).status == here.status, "the worktree stays as a fallback"
        receipt = await home.json("receipt", "friday")
        assert receipt["sent"] == receipt["arrived"]
        assert (receipt["direction"], receipt["contents"]["stashes"], receipt["contents"]["submodules"]) == ("SEND", 2, 1)

        # The conversation goes on there, and what is here is a copy in which nothing runs.
        assert "Heron it is." in await home.ff("say", "friday", "%say Heron it is.", "--wait")
        asked = prompts_in(stack)
        assert "remember the heron" in asked
        assert "subagent saw an otter" in asked
        work = "echo more >> both.txt && git add both.txt && git commit -qm 'In the cloud' && echo new > cloud.txt"
        await home.ff("exec", "friday", "--", "sh", "-c", work)
        await home.ff("exec", "friday", "--", "sh", "-c", "git branch side && git rm -q --cached tool.sh && rm crlf.txt")
        there = await seen_there(home, "friday")
        await home.ff("pull", "friday", limit_s=150)

        found = await home.json("status", "friday")
        assert found["workspace"]["location"] == "DESKTOP"
        assert Path(found["workspace"]["path"]) == repo.path, "untouched since the send: it lands where it was"
        assert without(seen_here(repo.path), b"node_modules", b"build") == there
        assert (repo.path / "node_modules/left/pad.js").read_text() == "module.exports = 1\n"
        assert repo.git("rev-parse", "--verify", "side")
        receipt = await home.json("receipt", "friday")
        assert receipt["direction"] == "PULL"
        assert receipt["sent"] == receipt["arrived"]
        assert "Home again." in await home.ff("say", "friday", "%say Home again.", "--wait")
        asked = prompts_in(stack)
        assert "remember the heron" in asked
        assert "Heron it is." in asked


async def test_sparse_detached_empty_and_without_a_remote(stack: Stack, tmp_path: Path) -> None:
    """The other shapes a workspace may have, all sent with one command: the lunch case."""
    url = await stack.git.create(f"shapes-{new_id().hex[-8:]}", base_files() | {"docs/a.md": "a\n", "docs/b.md": "b\n"})
    async with laptop(stack, tmp_path / "laptop") as home:
        await project(home, url, "shapes")
        sparse = await worktree(home, "sparse", "--project", "shapes")
        sparse.git("sparse-checkout", "set", "docs")
        sparse.write("docs/a.md", "edited\n")
        detached = await worktree(home, "detached", "--project", "shapes")
        detached.git("checkout", "-q", "--detach")
        detached.write("on-no-branch.txt", "x\n")
        detached.commit("On no branch")
        for name in ("empty", "alone"):
            folder = home.home / name
            Repo(home.home).git("init", "-q", str(folder))
            if name == "alone":
                Repo(folder).write("a.txt", "alone\n")
                Repo(folder).commit("Alone")
            await home.ff("project", "add", str(folder))
        empty = await worktree(home, "empty", "--project", "empty")
        empty.write("first.txt", "staged before any commit\n")
        empty.git("add", "first.txt")
        alone = await worktree(home, "alone", "--project", "alone")
        alone.write("b.txt", "untracked\n")

        repos = {"sparse": sparse, "detached": detached, "empty": empty, "alone": alone}
        here = {name: seen_here(repo.path) for name, repo in repos.items()}
        await home.ff("send", *repos, "--yes", limit_s=150)
        for name in repos:
            there = await seen_there(home, name)
            assert there == here[name], name
        await home.ff("exec", "empty", "--", "git", "-c", "user.name=C", "-c", "user.email=c@e", "commit", "-qm", "First")
        there = await seen_there(home, "empty")
        await home.ff("pull", "empty", limit_s=150)
        assert seen_here(empty.path) == there


async def test_both_sides_are_kept_and_only_one_laptop_owns(stack: Stack, tmp_path: Path) -> None:
    url = await stack.git.create(f"two-{new_id().hex[-8:]}", base_files())
    async with laptop(stack, tmp_path / "first") as first, laptop(stack, tmp_path / "second", await email_of(first)) as second:
        await project(first, url, "project")
        await project(second, url, "project")
        repo = await worktree(first, "shared")
        repo.write("both.txt", "of the first laptop\n")
        await first.ff("send", "shared", "--yes")
        # Local edits after the send, then a pull: both versions are there.
        repo.write("both.txt", "edited here meanwhile\n")
        await first.ff("exec", "shared", "--", "sh", "-c", "echo of the cloud > both.txt")
        said = await first.ff("pull", "shared")
        landed = Path((await first.json("status", "shared"))["workspace"]["path"])
        assert landed != repo.path
        assert (repo.path / "both.txt").read_text() == "edited here meanwhile\n"
        assert (landed / "both.txt").read_text() == "of the cloud\n"
        assert "merge" in said
        # The second laptop sees it in the cloud and takes it; the first can't write to it any more.
        await first.ff("send", "shared", "--yes")
        assert "shared" in await second.ff("ls")
        await second.ff("pull", "shared")
        where = Path((await second.json("status", "shared"))["workspace"]["path"])
        assert (where / "both.txt").read_text() == "of the cloud\n"
        refused = await first.ff("say", "shared", "%say hello", code=5)
        assert "lives on" in refused
        await first.ff("send", "shared", "--yes", code=5)


async def test_a_fixer_is_waited_for_or_stopped_both_ways(stack: Stack, tmp_path: Path) -> None:
    url = await stack.git.create(f"fixer-{new_id().hex[-8:]}", base_files())
    async with laptop(stack, tmp_path / "laptop") as home:
        await project(home, url, "project")
        await worktree(home, "fixed")
        begin = ("say", "fixed", "%stream 6000 60", "--new", "--workflow", "ratchet", "--session", "Ratchet")
        await home.ff(*begin)
        assert "wait or stop the fixer" in await home.ff("send", "fixed", "--yes", code=5)
        await home.ff("stop", "fixed")
        await home.ff("send", "fixed", "--yes")
        await home.ff("say", "fixed", "%stream 6000 60", "--session", "Ratchet")
        assert "wait or stop the fixer" in await home.ff("pull", "fixed", code=5)
        await home.ff("stop", "fixed")
        await home.ff("pull", "fixed")


async def test_a_laptop_that_dies_on_the_way_finishes_the_move(stack: Stack, tmp_path: Path) -> None:
    """``kill -9`` of everything on the laptop in the middle; the next command finds one owner, and the move finished."""
    url = await stack.git.create(f"dies-{new_id().hex[-8:]}", base_files())
    async with laptop(stack, tmp_path / "laptop") as home:
        await project(home, url, "project")
        repo = await worktree(home, "dies")
        make_nasty(repo)
        here = seen_here(repo.path)
        sending = await home.start("send", "dies", "--yes", "--credentials")
        served = int((await home.json("serve", "--status"))["pid"])
        while not (home.home / "desktop").exists():  # pragma: no cover
            pass
        os.kill(served, signal.SIGKILL)
        await sending.wait()
        # The next ff starts it again; what was begun is gone on with.
        await home.ff("send", "dies", "--yes", "--credentials", limit_s=150)
        assert without(await seen_there(home, "dies"), b".env") == without(here, b"node_modules", b"build", b".env")

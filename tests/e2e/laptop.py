"""A laptop whose user is logged in to the stack's server, and looks at his workspaces on both sides."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from api_user import PASSWORD, new_id
from nasty import COMMANDS, Repo, Seen
from stack import Stack
from terminal import Terminal


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

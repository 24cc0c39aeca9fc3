"""A conversation of the real CLI goes on in another home and another folder, and again at home."""

import json
import os
import shutil
from pathlib import Path
from uuid import UUID

import claude_agent_sdk
import pytest

from ff_core.claude.transcripts import collect, find, print_of_folder, print_of_settled, settle, slug
from ff_core.contract.handoff import ConversationPrint
from ff_core.ids import SessionId
from ff_core.process import clean_env, run
from ff_core.testing.model_api import ModelApi

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]
BUNDLED = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
SESSION = SessionId(UUID(int=5))
ID = "0f1e2d3c-0000-4000-8000-00000000abcd"


class Host:
    """A home and a checkout."""

    def __init__(self, top: Path, cwd: str, api: ModelApi) -> None:
        self.home, self.cwd, self.api = top / "home", top / cwd, api
        self.config = self.home / ".claude"
        self.home.mkdir(parents=True)
        self.cwd.mkdir()

    @property
    def folder(self) -> Path:
        return self.config / "projects" / slug(self.cwd)

    async def say(self, *options: str) -> None:
        env = clean_env(
            HOME=str(self.home),
            CLAUDE_CONFIG_DIR=str(self.config),
            ANTHROPIC_BASE_URL=self.api.url,
            ANTHROPIC_API_KEY="test-key",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            IS_SANDBOX="1",
            SHELL="/bin/bash",
        )
        command = [str(BUNDLED), "-p", "--permission-mode=bypassPermissions", "--setting-sources=", *options]
        done = await run(command, cwd=self.cwd, env=env, timeout_s=30, output_bytes_max=1 << 20)
        assert done.exit_code == 0, done

    def print(self) -> ConversationPrint:
        assert find(self.config, ID) == self.folder
        return print_of_settled(SESSION, self.config, ID)

    def leave(self, into: Path) -> Path:
        """Pack the conversation; afterwards there is nothing of this host."""
        for file in collect(self.config, ID):
            path = into / os.fsdecode(file.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(file.chunks()))
        shutil.rmtree(self.home.parent)
        return into


def asked(api: ModelApi) -> str:
    """What the model was told last, all of it."""
    return json.dumps(api.requests[-1].body["messages"], ensure_ascii=False)


async def test_a_conversation_goes_on_elsewhere_and_at_home_again(tmp_path: Path) -> None:
    async with ModelApi(tokens=["test-key"]) as api:
        laptop = Host(tmp_path / "laptop", "pröjekt \U0001f600", api)
        await laptop.say(
            f"--session-id={ID}",
            "%bash seq 1 20000\n%task %bash echo from-subagent|%say subagent finished\n%say Remember marmalade.",
        )
        names = {file.name.decode().split("/")[1] for file in collect(laptop.config, ID) if b"/" in file.name}
        assert names == {"subagents", "tool-results"}
        sent, old = laptop.print(), str(laptop.folder)
        there = laptop.leave(tmp_path / "there")

        cloud = Host(tmp_path / "cloud", "repo", api)
        settle(there, cloud.config, cloud.cwd, ID)
        assert cloud.print() == sent == print_of_folder(SESSION, there)
        (output,) = (cloud.folder / ID / "tool-results").iterdir()
        await cloud.say(f"--resume={ID}", f"%bash tail -n 1 {output}\n%say I think of honey.")
        assert all(word in asked(api) for word in ("seq 1 20000", "Remember marmalade.", "subagent", str(output)))
        assert old not in asked(api)
        assert cloud.print() != sent

        went_on, elsewhere = cloud.print(), str(cloud.folder)
        back = cloud.leave(tmp_path / "back")
        home = Host(tmp_path / "laptop", "pröjekt \U0001f600", api)
        settle(back, home.config, home.cwd, ID)
        assert home.print() == went_on
        await home.say(f"--resume={ID}", "%say Both.")
        mapped = f"{old}/{ID}/tool-results/{output.name}"
        assert all(word in asked(api) for word in ("Remember marmalade.", "I think of honey.", mapped))
        assert elsewhere not in asked(api)

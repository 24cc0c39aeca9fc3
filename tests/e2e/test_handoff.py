"""Send to Cloud and Pull from Cloud, everything real but the model: what a person types, and what he must find.

The laptop is ``ff serve`` with a home of its own, the cloud a server with VMs in Docker. What is compared is what git and the
shell show on both sides, byte for byte.
"""

from pathlib import Path

import pytest
from api_user import new_id
from laptop import laptop, online, project, prompts_in, seen_there, without, worktree
from nasty import POINTER, Repo, base_files, make_nasty, seen_here
from stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

LARGE = "seq 1 12000"
"""A command whose output Claude keeps in a file beside the transcript."""


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
        await home.ff("exec", "friday", "--", "sh", "-c", "echo TOKEN=of-the-agent >> .env")
        there = await seen_there(home, "friday")
        await home.ff("pull", "friday", limit_s=150)

        found = await home.json("status", "friday")
        assert found["workspace"]["location"] == "DESKTOP"
        assert Path(found["workspace"]["path"]) == repo.path, "untouched since the send: it lands where it was"
        assert without(seen_here(repo.path), b"node_modules", b"build") == there
        assert (repo.path / ".env").read_text() == "SECRET=of-the-user\nTOKEN=of-the-agent\n"
        assert (repo.path / "node_modules/left/pad.js").read_text() == "module.exports = 1\n"
        assert repo.git("rev-parse", "--verify", "side")
        receipt = await home.json("receipt", "friday")
        assert receipt["direction"] == "PULL"
        assert receipt["sent"] == receipt["arrived"]
        assert "Home again." in await home.ff("say", "friday", "%say Home again.", "--wait")
        asked = prompts_in(stack)
        assert "remember the heron" in asked
        assert "Heron it is." in asked

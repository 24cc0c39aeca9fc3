"""A workspace goes to a desktop and comes back, over HTTP, with real daemons: nothing is lost, and one side has it at a time."""

import asyncio
import os
from pathlib import Path
from uuid import UUID

from handing import Desktop, make_bundle
from here import LIMIT_S, Enter, Here

from ff_core.contract.handoff import HandoffStatus
from ff_core.contract.workspace import VmStatus
from ff_core.testing.git_server import GitServer

MAKE = """
git init -q . 2>/dev/null; git config user.email a@b; git config user.name a
echo one > a.txt && git add a.txt && git commit -qm first
echo two > a.txt && git add a.txt && echo three > a.txt
echo new > 'un tracked' && ln -s a.txt link && chmod +x 'un tracked' && mkdir -p empty/folder
git stash list
"""
LOOK = """
git status --porcelain=v2 --branch --untracked-files=all && cat a.txt && git log --format=%H && git fsck --strict --no-dangling
find . -path ./.git -prune -o -printf '%M %p %l\n' | sort
"""


async def state(here: Here, workspace_id: UUID) -> str:
    return await here.user.shell(workspace_id, LOOK)


async def test_there_and_back(here: Enter) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        workspace = await cloud.user.ready()
        await cloud.user.shell(workspace.id, MAKE)
        before = await state(cloud, workspace.id)

        pull = await desktop.begin_pull(workspace.id, epoch=1)
        pull = await desktop.until(pull, HandoffStatus.READY)
        refused = await cloud.user.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": ["true"]})
        assert refused.code == "workspace_moving"
        assert (await cloud.user.workspace(workspace.id)).moving == pull.id
        bundle = await desktop.download(pull)
        assert pull.bundle is not None
        assert bundle[7:] == await desktop.download(pull, offset=7)
        pull = await desktop.commit(pull, pull.bundle.fingerprint)
        assert pull.receipt is not None
        assert pull.receipt.equal
        there = await cloud.user.workspace(workspace.id)
        assert (there.location, there.epoch, there.desktop, there.moving) == ("DESKTOP", 2, "laptop", None)
        refused = await cloud.user.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": ["true"]})
        assert (refused.code, "laptop" in refused.problem["detail"]) == ("workspace_elsewhere", True)
        kept = await cloud.asleep(workspace.id)

        send = await desktop.send(workspace.id, bundle, pull, epoch=2, pieces=3)
        send = await desktop.until(send, HandoffStatus.READY)
        inert = await cloud.vm_of(workspace.id)
        assert (inert.id != kept.id, inert.status) == (True, VmStatus.CLAIMED)
        send = await desktop.commit(send)
        assert send.receipt is not None
        assert send.receipt.sent == send.receipt.arrived == pull.receipt.sent
        assert (send.epoch, (await cloud.user.workspace(workspace.id)).location) == (3, "CLOUD")
        assert await state(cloud, workspace.id) == before
        async with cloud.user.watch(workspace.id) as heard:
            await heard.until(lambda watch: watch.of("handoff.arrived"))
        assert [event.seq for event in heard.events] == list(range(1, len(heard.events) + 1))
        assert [event.body.kind for event in heard.events if event.body.kind.startswith("handoff")] == [
            "handoff.started",
            "handoff.arrived",
        ]
        await cloud.settled()
        assert await cloud.run("select 1 from handoff_pieces") == []


async def test_ignored_files_go_home_by_the_rules_they_came_by(here: Enter, folder: Path) -> None:
    made = await make_bundle(folder)
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        sent = desktop.sent(made.workspace_id, made.content, **made.sent(include=["/.env"]))
        send = await desktop.until(await desktop.upload(await desktop.begin(sent), made.content), HandoffStatus.READY)
        await desktop.commit(send)
        names = ".env more.local other.local"
        await cloud.user.shell(made.workspace_id, f"printf '*.local\\n.env\\n' >.gitignore; touch {names}")
        # Another desktop, which has a rule of its own and does not know that of the first.
        pull = await desktop.begin_pull(made.workspace_id, epoch=1, include=["/more.local"])
        pull = await desktop.until(pull, HandoffStatus.READY)
        assert pull.contents is not None
        assert sorted(pull.contents.included) == [".env", "more.local"]
        assert [(left.path, left.reason) for left in pull.contents.left_behind] == [("other.local", "ignored")]
        await desktop.commit(pull, pull.bundle.fingerprint if pull.bundle else None)
        await cloud.settled()


async def test_what_the_remote_has_is_fetched_from_there(here: Enter, folder: Path) -> None:
    (folder / "served").mkdir()
    async with here() as cloud, GitServer(folder / "served") as server:
        url = await server.create("team/app", {"big": os.urandom(1 << 20)})
        made = await make_bundle(folder / "laptop", url)
        assert len(made.content) < 1 << 19
        desktop = Desktop(cloud.user)
        wanted = desktop.sent(made.workspace_id, made.content, **made.sent(workspace={"name": "app", "repo_url": url}))
        handoff = await desktop.until(await desktop.upload(await desktop.begin(wanted), made.content), HandoffStatus.READY)
        await desktop.commit(handoff)
        kept = await cloud.user.shell(
            made.workspace_id, "git remote get-url origin && wc -c <big && cat a.txt && git log --format=%s"
        )
        assert kept.splitlines() == [url, str(1 << 20), "three", "first", "work"], kept
        await cloud.user.delete(made.workspace_id)

        gone = wanted["workspace"] | {"repo_url": url.replace("team/app", "team/gone")}
        handoff = await desktop.begin(desktop.announced(made.workspace_id, workspace=gone))
        async with asyncio.timeout(LIMIT_S):
            while (found := await desktop.look(handoff)).status.open:
                await asyncio.sleep(0.05)
        assert found.error is not None
        assert (found.status, found.error.code) == (HandoffStatus.FAILED, "repo_not_found")
        assert "ff send --whole" in found.error.message
        over = await cloud.user.refused("POST", f"/v1/handoffs/{handoff.id}/bundle", made.sent())
        assert (over.code, over.problem["reason"]) == ("handoff_over", "repo_not_found")
        await cloud.user.gone(made.workspace_id)
        await cloud.settled()

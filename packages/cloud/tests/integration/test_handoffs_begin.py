"""What the server refuses as a handoff begins, what it takes twice, and how a bundle comes in. No worker runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import UUID

import pytest
from api_user import Refused, User, new_id
from handing import CONTENTS, PRINT, Desktop
from here import Enter, Here

from ff_core.contract.base import dump
from ff_core.contract.handoff import PIECE_BYTES_MAX, Contents, HandoffStatus

BUNDLE = bytes(range(256)) * 40


async def refusal(desktop: Desktop, wanted: dict[str, Any]) -> Refused:
    with pytest.raises(Refused) as caught:
        await desktop.begin(wanted)
    return caught.value


async def elsewhere(cloud: Here, desktop: Desktop, **columns: Any) -> UUID:
    """A workspace that went to a desktop some time ago."""
    workspace = await cloud.user.order()
    values = {
        "location": "DESKTOP",
        "epoch": 4,
        "status": "READY",
        "desktop_id": desktop.id,
        "desktop_name": desktop.name,
        **columns,
    }
    await cloud.run("delete from operations")
    await cloud.run("delete from vms")
    await cloud.run(
        f"update workspaces set {', '.join(f'{name} = :{name}' for name in values)} where id = :id", id=workspace.id, **values
    )
    return workspace.id


async def test_a_send_begins_once(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop, workspace_id = Desktop(cloud.user), new_id()
        wanted = desktop.sent(workspace_id, BUNDLE)
        first, again = await asyncio.gather(desktop.begin(wanted), desktop.begin(wanted))
        assert first == again == await desktop.begin(wanted)
        assert (first.status, first.epoch, first.received_bytes) == (HandoffStatus.UPLOADING, 0, 0)
        other = {**wanted, "desktop_name": "another"}
        assert (await refusal(desktop, other)).code == "handoff_differs"
        second = await refusal(desktop, desktop.sent(workspace_id, BUNDLE))
        assert (second.code, second.problem["handoff_id"]) == ("handoff_open", str(first.id))
        found = await cloud.user.workspace(workspace_id)
        assert (found.location, found.status, found.moving, found.desktop) == ("DESKTOP", "PROVISIONING", first.id, "laptop")
        listed = await cloud.user.call("GET", f"/v1/handoffs?open=true&workspace_id={workspace_id}&limit=1")
        assert [item["id"] for item in listed["items"]] == [str(first.id)]
        audit = [each["action"] for each in (await cloud.user.call("GET", "/v1/me/audit"))["items"]]
        assert audit.count("handoff.begun") == 1


async def test_who_is_mistaken_about_where_it_is_is_told(here: Enter) -> None:
    async with here(workers=0) as cloud:
        laptop, tower = Desktop(cloud.user), Desktop(cloud.user, "tower")
        there = await elsewhere(cloud, laptop)
        wrong = [laptop.sent(there, BUNDLE, epoch=3), tower.sent(there, BUNDLE, epoch=4), tower.wanted("PULL", there, epoch=4)]
        for wanted in wrong:
            refused = await refusal(laptop, wanted)
            assert (refused.code, refused.problem["location"], refused.problem["epoch"]) == ("stale_epoch", "DESKTOP", 4)
            assert refused.problem["desktop"] == "laptop"
        await cloud.run("update workspaces set location = 'CLOUD', desktop_id = null, desktop_name = null")
        for wanted in (laptop.sent(there, BUNDLE, epoch=4), laptop.wanted("PULL", there, epoch=3)):
            refused = await refusal(laptop, wanted)
            assert (refused.code, refused.problem["location"], "desktop" in refused.problem) == ("stale_epoch", "CLOUD", False)
        await cloud.run("update workspaces set status = 'FAILED'")
        assert (await refusal(laptop, laptop.wanted("PULL", there, epoch=4))).code == "workspace_not_ready"
        assert (await refusal(laptop, laptop.wanted("PULL", new_id(), epoch=4))).code == "not_found"
        assert await cloud.run("select 1 from handoffs") == []


async def test_what_can_not_come_is_refused_at_once(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop, workspace_id = Desktop(cloud.user), new_id()
        taken = await cloud.user.order(name="taken")
        assert (await refusal(desktop, desktop.sent(workspace_id, BUNDLE, workspace={"name": taken.name}))).code == (
            "workspace_name_taken"
        )
        address = {"name": "new", "repo_url": "git@example.com:a/b"}
        assert (await refusal(desktop, desktop.sent(workspace_id, BUNDLE, workspace=address))).problem["status"] == 422
        large = {**CONTENTS, "file_bytes": 1 << 50}
        refused = await refusal(desktop, desktop.sent(workspace_id, BUNDLE, contents=large))
        assert (refused.code, refused.problem["limit"]) == ("limit_reached", "vm_disk_bytes")
        assert (await refusal(desktop, desktop.wanted("SEND", workspace_id, epoch=0))).problem["status"] == 422
        await cloud.run("update plans set workspaces_max = 1")
        refused = await refusal(desktop, desktop.sent(workspace_id, BUNDLE))
        assert (refused.code, refused.problem["limit"]) == ("limit_reached", "workspaces")
        await cloud.run("update plans set workspaces_max = 9, running_vms_max = 1")
        refused = await refusal(desktop, desktop.sent(workspace_id, BUNDLE))
        assert (refused.code, refused.problem["limit"]) == ("limit_reached", "running_vms")
        await cloud.run("update plans set running_vms_max = 9")
        async with User.sign_up(cloud.url) as stranger:
            his = Desktop(stranger)
            assert (await refusal(his, his.sent(taken.id, BUNDLE))).code == "workspace_id_taken"
        await cloud.run("update fleet set refusing = 'draining'")
        assert (await refusal(desktop, desktop.sent(workspace_id, BUNDLE))).code == "server_full"
        assert len(await cloud.run("select 1 from workspaces")) == 1


async def test_a_bundle_comes_in_piece_by_piece(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop = Desktop(cloud.user)
        handoff = await desktop.begin(desktop.sent(new_id(), BUNDLE))

        async def refused(offset: int, piece: bytes) -> Refused:
            with pytest.raises(Refused) as caught:
                await desktop.put(handoff, offset, piece)
            return caught.value

        ahead = await refused(1, BUNDLE[1:])
        assert (ahead.code, ahead.problem["received_bytes"]) == ("wrong_offset", 0)
        assert (await refused(0, BUNDLE + b"x")).code == "piece_unfit"
        assert (await refused(0, b"")).code == "piece_unfit"
        assert (await refused(0, bytes(PIECE_BYTES_MAX + 1))).code == "body_too_large"
        expires = (await desktop.look(handoff)).expires_at
        both = await asyncio.gather(*(desktop.put(handoff, 0, BUNDLE[:5000]) for _ in range(3)))
        assert {each.received_bytes for each in both} == {5000}
        assert (await desktop.look(handoff)).expires_at > expires
        assert (await desktop.put(handoff, 1000, BUNDLE[1000:2000])).received_bytes == 5000
        assert (await refused(4000, BUNDLE[4000:6000])).problem["received_bytes"] == 5000
        whole = await desktop.upload(handoff, BUNDLE, 5000)
        assert (whole.status, whole.received_bytes) == (HandoffStatus.RESTORING, len(BUNDLE))
        assert (await cloud.user.call("GET", f"/v1/operations/{whole.operation_id}"))["kind"] == "receive"
        assert (await desktop.put(handoff, 5000, BUNDLE[5000:])).status is HandoffStatus.RESTORING
        kept = await cloud.run("select sum(bytes) as bytes, count(*) as n from handoff_pieces")
        assert (kept[0].bytes, kept[0].n) == (len(BUNDLE), 2)
        assert (await cloud.run("select kind from operations where status = 'queued'"))[0].kind == "receive"
        with pytest.raises(Refused) as caught:
            await desktop.download(handoff)
        assert caught.value.code == "handoff_not_ready"
        refused_commit = await cloud.user.refused("POST", f"/v1/handoffs/{handoff.id}/commit", {})
        assert refused_commit.code == "handoff_not_ready"


async def test_the_vm_is_ordered_before_anything_is_packed(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop, workspace_id = Desktop(cloud.user), new_id()
        wanted = desktop.announced(workspace_id)
        first, again = await asyncio.gather(desktop.begin(wanted), desktop.begin(wanted))
        assert first == again
        assert (first.status, first.bundle, first.contents) == (HandoffStatus.UPLOADING, None, None)
        assert (await cloud.user.call("GET", f"/v1/operations/{first.operation_id}"))["kind"] == "receive"
        half = desktop.announced(workspace_id) | {"bundle": desktop.facts(BUNDLE)}
        assert (await refusal(desktop, half)).problem["status"] == 422

        async def refused(attempt: Awaitable[object]) -> str:
            with pytest.raises(Refused) as caught:
                await attempt
            return caught.value.code

        assert await refused(desktop.put(first, 0, BUNDLE)) == "handoff_not_ready"
        large = Contents.model_validate(CONTENTS | {"file_bytes": 1 << 50})
        assert await refused(desktop.announce(first, desktop.facts(BUNDLE), large)) == "limit_reached"
        told, _ = await asyncio.gather(*(desktop.announce(first, desktop.facts(BUNDLE)) for _ in range(2)))
        assert (told.bundle and told.bundle.size, told.received_bytes) == (len(BUNDLE), 0)
        await desktop.put(first, 0, BUNDLE[:100])
        assert (await desktop.announce(first, desktop.facts(BUNDLE))).received_bytes == 100, "the same changes nothing"

        other = BUNDLE[::-1]
        anew = await desktop.announce(first, desktop.facts(other))
        assert (anew.received_bytes, anew.bundle and anew.bundle.sha256) == (0, desktop.facts(other)["sha256"])
        assert await cloud.run("select 1 from handoff_pieces") == []
        assert await refused(desktop.put(first, 100, other[100:])) == "wrong_offset"
        whole = await desktop.upload(first, other, pieces=2)
        assert (whole.status, whole.operation_id) == (HandoffStatus.RESTORING, first.operation_id)
        assert (await desktop.announce(first, desktop.facts(other))).status is HandoffStatus.RESTORING
        assert await refused(desktop.announce(first, desktop.facts(BUNDLE))) == "handoff_differs"
        await desktop.abort(first)
        assert await refused(desktop.announce(first, desktop.facts(other))) == "handoff_over"
        (operation,) = await cloud.run("select cancel_requested from operations")
        assert operation.cancel_requested


async def test_a_piece_of_a_bundle_that_was_packed_again_does_not_count(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop = Desktop(cloud.user)
        handoff = await desktop.begin(desktop.announced(new_id()))
        await desktop.announce(handoff, desktop.facts(BUNDLE))

        async def slow() -> AsyncIterator[bytes]:
            yield BUNDLE[:100]
            await desktop.announce(handoff, desktop.facts(BUNDLE[::-1]))
            yield BUNDLE[100:]

        response = await cloud.user.http.put(f"/v1/handoffs/{handoff.id}/bundle?offset=0", content=slow())
        assert (response.status_code, response.json()["code"]) == (409, "wrong_offset")
        assert (await desktop.look(handoff)).received_bytes == 0


async def test_one_that_was_here_before_comes_over_its_own_row(here: Enter) -> None:
    async with here(workers=0) as cloud:
        desktop = Desktop(cloud.user)
        there = await elsewhere(cloud, desktop)
        before = await cloud.user.workspace(there)
        wanted = desktop.sent(there, BUNDLE, epoch=4, workspace={"name": "as it is called there"})
        handoff = await desktop.begin(wanted)
        assert (await cloud.user.workspace(there)).moving == handoff.id
        aborted = await desktop.abort(handoff)
        assert (aborted.status, (await desktop.abort(handoff)).status) == (HandoffStatus.ABORTED, HandoffStatus.ABORTED)
        assert (await desktop.begin(wanted)).status is HandoffStatus.ABORTED, "the same request finds it as it is"
        over = await cloud.user.refused("POST", f"/v1/handoffs/{handoff.id}/commit", {"arrived": dump(PRINT)})
        assert (over.code, over.problem["reason"]) == ("handoff_over", "aborted")
        assert (await cloud.user.workspace(there)).name == before.name

"""Keys of users: used for each user's own agents, and nowhere to be found but sealed in the database."""

import asyncio
import json
import subprocess
from pathlib import Path

import psycopg
import pytest
from api_user import User, new_id
from stack import MODEL_KEY, Stack, scratch

from ff_cloud.kit.db import libpq_arguments
from ff_cloud.kit.postgres import EmbeddedPostgres
from ff_cloud.testing.server import running_server

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]

# Everything that a process in a VM may look at; the patterns come on standard input, so that this search does not find itself.
SEARCH = """
cat > /tmp/patterns
grep -rlaFf /tmp/patterns / --exclude-dir=proc --exclude-dir=sys --exclude=patterns 2>/dev/null
grep -laFf /tmp/patterns /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null
rm /tmp/patterns
"""


def key_of(name: str) -> str:
    return f"sk-ant-api03-{name}-{new_id().hex}-own"


async def test_two_users_work_with_their_own_keys_and_nobody_can_find_them(stack: Stack, user: User, stranger: User) -> None:
    keys = {user.email: key_of("first"), stranger.email: key_of("second")}

    async def works(who: User) -> tuple[User, str, str]:
        await who.call("PUT", "/v1/me/credentials/anthropic_api_key", {"value": keys[who.email]})
        workspace = await who.ready()
        session = await who.session(workspace.id, permissions="YOLO")
        async with who.watch(workspace.id) as heard:
            await who.say(session.id, f"%bash echo {who.email}; env\n%say done {who.email}")
            assert (await heard.turn()).outcome == "done"
            await who.say(session.id, f"%stream 60000 40 {who.email}-goes-on")
            await heard.until(lambda h: any(hint.body.kind == "message.delta" for hint in h.hints))
            container = f"ff-{stack.network.deployment}-{workspace.vm.id}"
            found = [await asyncio.to_thread(_search, container, uid, [*keys.values(), MODEL_KEY]) for uid in ("0", "1000")]
            assert found == ["", ""]
            # The same search does find what is there: the VM's token, in the environment of the agent that works.
            assert "/environ" in await asyncio.to_thread(_search, container, "1000", [f"ffv_{workspace.vm.id.hex}_1_"])
            inspected = await asyncio.to_thread(_output, "docker", "inspect", container)
            logged = await asyncio.to_thread(_output, "docker", "logs", container)
            await who.call("POST", f"/v1/sessions/{session.id}/interrupt", {})
            await heard.turn(2)
        return who, str(workspace.id), inspected + logged

    done = await asyncio.gather(works(user), works(stranger))
    for who in (user, stranger):
        asked = [request for request in stack.model.requests if who.email in str(request.body.get("messages"))]
        assert len(asked) >= 3
        assert {request.headers["x-api-key"] for request in asked} == {keys[who.email]}
    for who, _, outside in done:
        assert not [key for key in keys.values() if key in outside]
        shown = await who.call("GET", "/v1/me/credentials")
        assert [one["hint"] for one in shown["items"]] == ["-own"]
        assert shown["items"][0]["last_used_at"] is not None
    folder = stack.server.log.parent
    dumped = await asyncio.to_thread(_dump, folder / "data" / "postgres")
    assert user.email in dumped, "the dump has everything"
    assert "sealed" in dumped
    for key in keys.values():
        assert key not in dumped
        # The cluster's own files, its write-ahead log, the server's log.
        assert (await asyncio.to_thread(_search_files, folder, key)) == ""
    for who, workspace_id, _ in done:
        await who.call("DELETE", "/v1/me/credentials/anthropic_api_key")
        await who.delete(workspace_id)


async def test_what_was_used_is_counted_per_user_and_workspace(stack: Stack, user: User, stranger: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%stream 50 500")
        turn = await heard.turn()
    async with asyncio.timeout(20):
        rows = []
        path = f"/v1/me/usage?workspace_id={workspace.id}"
        while sum(row["output_tokens"] for row in rows) < turn.usage.output_tokens:
            await asyncio.sleep(0.2)
            rows = (await user.call("GET", path))["items"]
    assert {row["workspace_id"] for row in rows} == {str(workspace.id)}
    assert (await stranger.call("GET", path))["items"] == []
    await user.delete(workspace.id)


async def test_without_a_key_the_session_says_so_at_once(stack: Stack) -> None:
    settings = {name: value for name, value in stack.settings.items() if name != "FF_MODEL_API_KEY"}
    settings |= {
        "FF_DEPLOYMENT": f"{stack.network.deployment}-n",
        "FF_VM_NETWORK": stack.network.name,
        "FF_POOL_SIZE": "0",
        "ANTHROPIC_API_KEY": "",
    }
    with scratch() as folder, running_server(folder, settings) as server:
        async with User.sign_up(server.url) as user:
            workspace = await user.ready()
            session = await user.session(workspace.id, permissions="YOLO")
            refused = await user.refused("POST", f"/v1/sessions/{session.id}/messages", {"text": "%say hello"})
            assert (refused.status, refused.code) == (409, "model_key_missing")
            assert "ff credential set anthropic_api_key" in refused.problem["detail"]
            key = key_of("late")
            await user.call("PUT", "/v1/me/credentials/anthropic_api_key", {"value": key})
            async with user.watch(workspace.id) as heard:
                await user.say(session.id, "%say hello")
                assert (await heard.turn()).outcome == "done", "the key counts from the next prompt on"
                await user.say(session.id, "%stream 100 40\n%bash echo first\n%say second")
                await heard.until(lambda h: any(hint.body.kind == "message.delta" for hint in h.hints[-5:]))
                await user.call("DELETE", "/v1/me/credentials/anthropic_api_key")
                failed = await heard.turn(2)
            assert (failed.outcome, failed.error.code) == ("failed", "model_key_missing")
            assert "ff credential set anthropic_api_key" in failed.error.message
            assert heard.of("model.retrying") == []
            assert key not in server.log.read_text()
            await user.delete(workspace.id)


async def test_a_deleted_workspaces_token_is_worth_nothing(stack: Stack, user: User) -> None:
    workspace, other = await asyncio.gather(user.ready(), user.ready())
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%bash echo $ANTHROPIC_BASE_URL $ANTHROPIC_API_KEY")
        await heard.turn()
    base, token = heard.of("tool.finished")[0].output.split()
    ask = f"curl -s -m 10 -D - {base}/v1/models -H 'x-api-key: {token}'"
    assert " 200 " in await user.shell(other.id, ask)
    for path in ("/v1/me", "/healthz", "/openapi.json"):
        url = base.removesuffix("/anthropic") + path
        status = await user.shell(other.id, f"curl -s -m 5 -o /dev/null -w '%{{http_code}}' {url}")
        assert status == "404", "the gateway is not the API"
    await user.delete(workspace.id)
    answer = await user.shell(other.id, ask)
    assert " 401 " in answer
    assert "x-should-retry: false" in answer
    await user.delete(other.id)


def _search(container: str, uid: str, patterns: list[str]) -> str:
    command = ["docker", "exec", "-i", "-u", uid, container, "bash", "-c", SEARCH]
    done = subprocess.run(command, input="\n".join(patterns) + "\n", capture_output=True, text=True, timeout=100, check=False)
    return done.stdout


def _search_files(folder: Path, pattern: str) -> str:
    command = ["grep", "-rlaFf", "-", str(folder)]
    return subprocess.run(command, input=pattern + "\n", capture_output=True, text=True, timeout=60, check=False).stdout


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout + done.stderr


def _dump(place: Path) -> str:
    """Every row of every table of ours, as the role that sees all of them."""
    with psycopg.connect(**libpq_arguments(EmbeddedPostgres(place).url())) as connection:
        connection.execute("set role ff_system")
        tables = connection.execute(
            "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
            " and relname <> 'alembic_version'"
        )
        lines = []
        for (table,) in tables.fetchall():
            with connection.cursor().copy(f'copy public."{table}" to stdout (format csv, header)') as rows:
                lines.append(b"".join(bytes(piece) for piece in rows).decode())
    return json.dumps(lines)

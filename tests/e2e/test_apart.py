"""``ff-cloud api`` and ``ff-cloud worker`` as processes of their own over one PostgreSQL, two of each, and a gateway."""

import asyncio
import os
import re
import signal
import subprocess
from contextlib import ExitStack

import pytest
from api_user import User
from stack import Stack, scratch

from ff_cloud.testing.postgres import postgres_for_tests
from ff_cloud.testing.server import own_environment, program, running

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]

LISTENING = re.compile(r"^listening +(http://\S+)\n", re.MULTILINE)
GATEWAY = re.compile(r"^gateway +(http://\S+)\n", re.MULTILINE)
WORKING = re.compile(r"^(working)\n", re.MULTILINE)


async def test_replicas_share_one_database(stack: Stack) -> None:
    with ExitStack() as exits:
        folder = exits.enter_context(scratch())
        postgres = exits.enter_context(postgres_for_tests())
        url = postgres.create_database(migrated=False).render_as_string(hide_password=False)
        environment = own_environment(
            stack.settings
            | {
                "FF_DATABASE_URL": url,
                "FF_DATA_DIR": str(folder / "data"),
                "FF_SECRET_KEY": "only this test knows what is written here",
                "FF_PORT": "0",
                "FF_DEPLOYMENT": f"{stack.network.deployment}-s",
                "FF_VM_NETWORK": stack.network.name,
                "FF_POOL_SIZE": "0",
            }
        )
        early = await _ff_cloud("api", environment)
        assert (early.returncode, "ff-cloud migrate" in early.stderr) == (1, True)
        assert (await _ff_cloud("migrate", environment)).returncode == 0
        assert "nothing to do" in (await _ff_cloud("migrate", environment)).stderr

        gateway = exits.enter_context(
            running(
                [program("ff-cloud"), "gateway"],
                environment=environment | {"FF_GATEWAY_PORT": "0"},
                log=folder / "gateway.log",
                ready=GATEWAY,
            )
        )
        environment["FF_GATEWAY_URL"] = gateway.url
        apis = [
            exits.enter_context(
                running([program("ff-cloud"), "api"], environment=environment, log=folder / f"api{number}.log", ready=LISTENING)
            )
            for number in range(2)
        ]
        workers = [
            exits.enter_context(
                running(
                    [program("ff-cloud"), "worker"], environment=environment, log=folder / f"worker{number}.log", ready=WORKING
                )
            )
            for number in range(2)
        ]
        async with User.sign_up(apis[0].url) as user:
            workspaces = [await user.order(name=f"shared {number}") for number in range(4)]
            os.kill(workers[0].pid, signal.SIGKILL)  # the other one takes over what it was doing
            for ordered in workspaces:
                assert (await user.settled(ordered.id)).status == "READY"
            session = await user.session(workspaces[0].id, permissions="YOLO")
            user.http.base_url = apis[1].url
            async with user.watch(workspaces[0].id) as heard:
                user.http.base_url = apis[0].url
                await user.say(session.id, "%say across replicas")
                await heard.turn()
            assert heard.of("message.assistant")[0].text == "across replicas"
            await asyncio.gather(*(user.delete(ordered.id) for ordered in workspaces))


async def _ff_cloud(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [program("ff-cloud"), command]
    return await asyncio.to_thread(
        subprocess.run, words, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

"""Git with a credential that the VM never sees: clone, push from the shell, push by the agent; and a search for it everywhere."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from api_user import User
from stack import MODEL_KEY, scratch

from ff_cloud.testing.server import Running, running_server
from ff_cloud.testing.vm_network import VmNetwork, vm_network
from ff_core.testing.git_server import GitServer
from ff_core.testing.model_api import ModelApi

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

GITHUB_TOKEN = "ghp_e2eRealTokenOfTheOwner0815"
CONFIGURED = "/workspace/home/.config/factory-factory/gitconfig"
COMMIT = "git add -A && git commit -qm work && git push -q origin HEAD:refs/heads/{}"


@dataclass(frozen=True)
class Place:
    """A server of our own, for which a private git server is GitHub."""

    network: VmNetwork
    git: GitServer
    repositories: Path
    folder: Path
    server: Running

    def in_repository(self, what: str) -> str:
        argv = ["git", "--git-dir", str(self.repositories / "team/app.git"), "show", what]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout

    def docker(self, *argv: str) -> str:
        return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=60).stdout

    def holders(self, container: str, search: str, *secrets: str) -> list[str]:
        """What root and the user find; the secrets come on standard input, so that the search does not find itself."""
        found: list[str] = []
        for user in ("0", "1000"):
            argv = ["docker", "exec", "-i", "-u", user, container, "sh", "-c", search]
            done = subprocess.run(argv, input="\n".join(secrets), capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode in (0, 1, 2), done
            found += done.stdout.split()
        return found

    def container(self, vm_id: object) -> str:
        return f"ff-{self.network.deployment}-{vm_id}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with AsyncExitStack() as exits:
        network = await exits.enter_async_context(vm_network(purpose="e2e-git"))
        model = await exits.enter_async_context(ModelApi(host=network.gateway))
        repositories = tmp_path_factory.mktemp("private")
        credentials = ("x-access-token", GITHUB_TOKEN)
        git = await exits.enter_async_context(GitServer(repositories, host=network.gateway, credentials=credentials))
        await git.create("team/app", {"README.md": "hello\n"})
        folder = exits.enter_context(scratch())
        settings = {
            "FF_DEPLOYMENT": network.deployment,
            "FF_MODEL_BASE_URL": model.url,
            "FF_MODEL_API_KEY": MODEL_KEY,
            "FF_ALLOW_PLAIN_HTTP_REPOS": "1",
            "FF_GITHUB_URL": git.origin,
            "FF_GIT_HOSTS": git.origin,
        }
        server = exits.enter_context(running_server(folder, settings))
        yield Place(network, git, repositories, folder, server)


@pytest_asyncio.fixture(loop_scope="module")
async def user(place: Place) -> AsyncIterator[User]:
    async with User.sign_up(place.server.url) as somebody:
        yield somebody


async def test_push_from_the_shell_and_by_the_agent_with_a_credential_that_is_in_no_vm(place: Place, user: User) -> None:
    await user.call("PUT", "/v1/me/credentials/github_token", {"value": GITHUB_TOKEN})
    workspace = await user.ready(repo_url=place.git.url("team/app"))
    assert (
        await user.shell(workspace.id, "cat README.md; git config remote.origin.url") == f"hello\n{place.git.url('team/app')}\n"
    )

    await user.shell(workspace.id, "echo from the shell > shell && " + COMMIT.format("from-shell"))
    assert place.in_repository("from-shell:shell") == "from the shell\n"

    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%bash echo by the agent > agent && " + COMMIT.format("by-agent") + "\n%say pushed")
        await heard.turn()
    assert place.in_repository("by-agent:agent") == "by the agent\n"

    await place.git.commit("team/app", {"news": "from elsewhere\n"})
    assert await user.shell(workspace.id, "git fetch -q && git show origin/main:news") == "from elsewhere\n"

    name = place.container(workspace.vm.id)
    everywhere = "grep -raslF -f - /workspace /tmp /run /etc /home /root /var /proc/[0-9]*/environ /proc/[0-9]*/cmdline"
    assert place.holders(name, everywhere, GITHUB_TOKEN, MODEL_KEY) == []
    assert place.holders(name, everywhere, "Authorization: Bearer ffv_") == [CONFIGURED] * 2  # so the search does find things
    shown = place.docker("inspect", name) + place.docker("logs", name)
    assert GITHUB_TOKEN not in shown
    assert (await user.shell(workspace.id, f"stat -c '%a %U' {CONFIGURED}")).strip() == "600 dev"
    kept = await asyncio.to_thread(
        subprocess.run, ["grep", "-ralF", GITHUB_TOKEN, str(place.folder)], capture_output=True, timeout=60
    )
    assert kept.stdout == b""  # the server's data folder: database, key file, log
    await user.delete(workspace.id)


async def test_without_a_credential_the_workspace_says_what_to_set(place: Place, user: User) -> None:
    failed = await user.settled((await user.order(repo_url=place.git.url("team/app"))).id)
    assert failed.error is not None
    assert failed.error.code == "repo_auth_failed"
    assert "`ff credential set github_token`" in failed.error.message
    await user.delete(failed.id)


async def test_a_removed_credential_and_a_deleted_vm_are_refused_at_once(place: Place, user: User) -> None:
    await user.call("PUT", "/v1/me/credentials/github_token", {"value": GITHUB_TOKEN})
    workspace = await user.ready(repo_url=place.git.url("team/app"))
    await user.call("DELETE", "/v1/me/credentials/github_token")
    refused = await user.run(workspace.id, "git", "push", "origin", "HEAD:refs/heads/late")
    assert refused.exit_code != 0
    assert b"remote: " in refused.stderr
    assert b"`ff credential set github_token`" in refused.stderr
    said = await user.shell(workspace.id, f"cat {CONFIGURED}")
    token = re.search(r"Bearer (\S+)", said)
    port = re.search(r'\[http "http://ff-host:(\d+)/git/"\]', said)
    assert token
    assert port
    asked = f"http://{place.network.gateway}:{port[1]}/git/{place.git.origin.replace('://', '/')}/team/app.git/info/refs"
    async with httpx2.AsyncClient(trust_env=False) as client:
        headers = {"Authorization": f"Bearer {token[1]}"}
        assert (await client.get(asked, params={"service": "git-upload-pack"}, headers=headers)).status_code == 403
        await user.delete(workspace.id)
        assert (await client.get(asked, params={"service": "git-upload-pack"}, headers=headers)).status_code == 401

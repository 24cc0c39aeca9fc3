"""The second clone of a repository starts from this machine's mirror, for whom the git server lets read it and nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from api_user import User
from stack import MODEL_KEY, scratch

from ff_cloud.testing.server import Running, running_server
from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.image import LATEST
from ff_core.testing.git_server import GitServer
from ff_core.testing.model_api import ModelApi

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

GITHUB_TOKEN = "ghp_e2eRealTokenOfTheOwner0815"
WAIT_S = 60.0
PACKS = "ls .git/objects/pack | grep pack$"


@dataclass(frozen=True)
class Place:
    """A server with one git server that asks for a credential and one that does not."""

    private: GitServer
    public: GitServer
    mirrors: Path
    server: Running

    def packs(self, whose: str) -> set[str]:
        """Of the mirrors of one user, or of all."""
        return {path.name for path in self.mirrors.glob(f"{whose}/*/gen-*/objects/pack/*.pack")}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with AsyncExitStack() as exits:
        network = await exits.enter_async_context(vm_network(purpose="e2e-mirrors"))
        model = await exits.enter_async_context(ModelApi(host=network.gateway))
        credentials = ("x-access-token", GITHUB_TOKEN)
        private = await exits.enter_async_context(
            GitServer(tmp_path_factory.mktemp("private"), host=network.gateway, credentials=credentials)
        )
        public = await exits.enter_async_context(GitServer(tmp_path_factory.mktemp("public"), host=network.gateway))
        folder = exits.enter_context(scratch())
        settings = {
            "FF_DEPLOYMENT": network.deployment,
            "FF_MODEL_BASE_URL": model.url,
            "FF_MODEL_API_KEY": MODEL_KEY,
            "FF_ALLOW_PLAIN_HTTP_REPOS": "1",
            "FF_GITHUB_URL": private.origin,
            "FF_GIT_HOSTS": f"{private.origin},{public.origin}",
            "FF_POOL_SIZE": "0",
            "FF_VM_IMAGE": LATEST,
        }
        server = exits.enter_context(running_server(folder, settings))
        yield Place(private, public, folder / "data/mirrors", server)


@pytest_asyncio.fixture(loop_scope="module")
async def users(place: Place) -> AsyncIterator[tuple[User, User]]:
    async with User.sign_up(place.server.url) as ann, User.sign_up(place.server.url) as bob:
        yield ann, bob


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.1)


async def test_what_is_public_is_shared(place: Place, users: tuple[User, User]) -> None:
    ann, bob = users
    url = await place.public.create("team/app", {"README.md": "hello\n"})
    first = await ann.ready(repo_url=url)
    await until(lambda: place.packs("public"))
    mirrored = place.packs("public")
    await place.public.commit("team/app", {"news": "since then\n"})
    second = await bob.ready(repo_url=url)
    assert await bob.shell(second.id, "cat README.md news") == "hello\nsince then\n"
    assert mirrored <= set((await bob.shell(second.id, PACKS)).split())
    assert await bob.shell(second.id, "git fsck && test ! -e .git/objects/info/alternates && ls -A ..; git status -sb") == (
        ".ff\nhome\nrepo\n## main...origin/main\n"
    )
    await ann.delete(first.id)
    await bob.delete(second.id)


async def test_what_is_private_is_not(place: Place, users: tuple[User, User]) -> None:
    ann, bob = users
    url = await place.private.create("team/secret", {"README.md": "secret\n"})
    await ann.call("PUT", "/v1/me/credentials/github_token", {"value": GITHUB_TOKEN})
    first = await ann.ready(repo_url=url)
    await until(lambda: place.packs("private/*"))
    mirrored = place.packs("private/*")
    second = await ann.ready(repo_url=url)
    assert set((await ann.shell(second.id, PACKS)).split()) == mirrored

    refused = await bob.settled((await bob.order(repo_url=url)).id)
    assert refused.error is not None
    assert refused.error.code == "repo_auth_failed"

    await ann.call("DELETE", "/v1/me/credentials/github_token")
    withdrawn = await ann.settled((await ann.order(repo_url=url)).id)
    assert withdrawn.error is not None
    assert withdrawn.error.code == "repo_auth_failed"
    assert place.packs("private/*") == set()
    for workspace in (first, second, withdrawn):
        await ann.delete(workspace.id)
    await bob.delete(refused.id)

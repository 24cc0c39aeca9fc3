"""A gateway that serves git and GitHub for one VM, with the door's database left out."""

import httpx2
from fastapi import FastAPI
from pydantic import SecretStr

from ff_cloud.credentials.service import Opened
from ff_cloud.gateway.door import Owner
from ff_cloud.gateway.errors import VmTokenRefused
from ff_cloud.gateway.git import GitGateway
from ff_cloud.gateway.git_caller import Callers
from ff_cloud.gateway.github_rest import GitHubGateway
from ff_cloud.kit.http_middleware import CatchAll
from ff_cloud.kit.http_problems import install
from ff_core.contract.credentials import CredentialKind
from ff_core.ids import UserId, VmId, WorkspaceId
from ff_core.world import SystemWorld


class OneVm:
    """Knows one token, until it is revoked."""

    def __init__(self, token: str, github_token: str | None) -> None:
        new_id = SystemWorld().new_id
        self.token: str | None = token
        self.github_token = github_token
        self.owner = Owner(UserId(new_id()), WorkspaceId(new_id()), VmId(new_id()))

    async def owner_of(self, token: str) -> Owner:
        if token != self.token:
            raise VmTokenRefused
        return self.owner

    async def credential(self, owner: Owner, *kinds: CredentialKind) -> Opened | None:
        assert owner == self.owner
        assert kinds == (CredentialKind.GITHUB_TOKEN,)
        return None if self.github_token is None else Opened(kinds[0], SecretStr(self.github_token))


def gateway_app(
    vm: OneVm,
    http: httpx2.AsyncClient,
    *,
    github: str,
    hosts: tuple[str, ...] = (),
    api_url: str = "http://127.0.0.1:9",
    transfers_max: int = 8,
) -> FastAPI:
    callers = Callers(vm, transfers_max=transfers_max)
    app = FastAPI()
    install(app)
    app.router.routes.extend(GitGateway(hosts=(github, *hosts), github=github, callers=callers, http=http).routes())
    app.router.routes.extend(GitHubGateway(api_url=api_url, callers=callers, http=http).routes())
    app.add_middleware(CatchAll)
    return app

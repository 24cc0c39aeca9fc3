"""The backend that is a server, with what only a server has: machines that sleep, an account's keys and costs."""

from collections.abc import Iterator

from ff_core.contract.credentials import CredentialKind, CredentialView, SetCredential
from ff_core.contract.operation import OperationView
from ff_core.contract.page import Page
from ff_core.contract.usage import UsageView
from ff_core.contract.workspace import NewWorkspace, WorkspaceView
from ff_core.ids import WorkspaceId
from ff_desktop.http_backend import HttpBackend


class CloudBackend(HttpBackend):
    """See ``ff_desktop.backend.Backend``, ``Machines`` and ``Account``."""

    def create(self, spec: NewWorkspace) -> WorkspaceView:
        """See ``Machines``."""
        key = str(self._world.new_id())
        return self.connection.ask("POST", "/v1/workspaces", WorkspaceView, body=spec, idempotency_key=key)

    def suspend(self, workspace: WorkspaceId, *, force: bool) -> OperationView:
        """See ``Machines``."""
        params = {"force": "true"} if force else {}
        return self.connection.ask("POST", f"/v1/workspaces/{workspace}/suspend", OperationView, params=params)

    def delete(self, workspace: WorkspaceId, *, force: bool = False) -> OperationView:  # noqa: ARG002
        """See ``Backend``; the server deletes in any case."""
        return super().delete(workspace)

    def credentials(self) -> list[CredentialView]:
        """See ``Account``."""
        return list(self.connection.ask("GET", "/v1/me/credentials", Page[CredentialView]).items)

    def set_credential(self, kind: CredentialKind, secret: SetCredential) -> CredentialView:
        """See ``Account``."""
        return self.connection.ask("PUT", f"/v1/me/credentials/{kind}", CredentialView, body=secret)

    def remove_credential(self, kind: CredentialKind) -> None:
        """See ``Account``."""
        self.connection.call("DELETE", f"/v1/me/credentials/{kind}")

    def usage(self, *, workspace: WorkspaceId | None = None) -> Iterator[UsageView]:
        """See ``Account``."""
        params = {} if workspace is None else {"workspace_id": str(workspace)}
        return self.pages("/v1/me/usage", Page[UsageView], params)

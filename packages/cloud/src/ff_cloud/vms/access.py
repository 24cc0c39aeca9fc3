"""Reaching the daemon of a running VM, and telling it whose it is when it has forgotten."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx2

from ff_cloud.vms.daemon_client import DaemonClient, VmUnreachable
from ff_cloud.vms.repository import Vm
from ff_cloud.vms.token import vm_token
from ff_core.contract.daemon import Bind, ModelAccess
from ff_core.contract.problem import RemoteProblem
from ff_core.ids import WorkspaceId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A workspace and the VM that should answer for it."""

    workspace_id: WorkspaceId
    name: str
    vm: Vm


class Daemons:
    """Makes clients of daemons. Tokens are derived from ``secret``, nothing is looked up; ``http`` is a shared pool."""

    def __init__(self, *, secret: bytes, model: ModelAccess, http: httpx2.AsyncClient) -> None:
        self._secret = secret
        self._model = model
        self._http = http

    def client(self, vm: Vm) -> DaemonClient:
        """The daemon of ``vm``. Raises :class:`VmUnreachable` when its container has never run."""
        if vm.address is None or vm.port is None:
            raise VmUnreachable
        token = vm_token(self._secret, vm.id, vm.generation)
        return DaemonClient(vm.address, vm.port, token, vm.generation, self._http)

    async def bind(self, target: Target) -> None:
        """Tell the daemon whose it is and how its agent reaches the model; may be repeated."""
        wanted = Bind(workspace_id=target.workspace_id, name=target.name, model=self._model)
        await self.client(target.vm).bind(wanted)

    async def call(self, target: Target, act: Callable[[DaemonClient], Awaitable[T]]) -> T:
        """Do ``act``; a daemon that was restarted and forgot its binding is bound again first.

        Raises what ``act`` raises: :class:`VmUnreachable`, or :class:`RemoteProblem` with the daemon's own code.
        """
        client = self.client(target.vm)
        try:
            return await act(client)
        except RemoteProblem as error:
            if error.problem.code != "not_bound":
                raise
        await self.bind(target)
        return await act(client)

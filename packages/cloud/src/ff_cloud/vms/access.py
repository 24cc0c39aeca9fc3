"""Reaching the daemon of a running VM, and telling it whose it is when it has forgotten."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ff_cloud.vms.daemon_client import DaemonClient, VmUnreachable
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.model import AnyVm, Vm
from ff_cloud.vms.token import vm_token
from ff_core.contract.daemon import Bind, GitAccess, Health, ModelAccess, Probe
from ff_core.contract.places import Location
from ff_core.contract.problem import RemoteProblem
from ff_core.ids import HandoffId, VmId, WorkspaceId

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """A workspace and the VM that should answer for it."""

    workspace_id: WorkspaceId
    name: str
    vm: Vm
    existing: bool
    """The VM must hold the workspace already: one that does not has lost its files."""
    location: Location = Location.CLOUD
    epoch: int = 1
    handoff_id: HandoffId | None = None
    """Where it lives, how often that changed, and the last handoff that is over."""


@dataclass(frozen=True, slots=True)
class Outside:
    """How what runs in a VM gets out: through the gateway, with a token of the VM's own."""

    model: ModelAccess
    git: GitAccess | None = None


class Daemons:
    """Makes clients of daemons. Tokens are derived from ``secret``, nothing is looked up; ``http`` is a shared pool.

    ``ways`` says what a VM of a generation is told of the outside.
    """

    def __init__(self, *, secret: bytes, ways: Callable[[VmId, int], Outside], http: DaemonHttp) -> None:
        self._secret = secret
        self._ways = ways
        self._http = http

    def client(self, vm: AnyVm) -> DaemonClient:
        """The daemon of ``vm``. Raises :class:`VmUnreachable` when its container has never run."""
        if vm.address is None or vm.port is None:
            raise VmUnreachable
        token = vm_token(self._secret, vm.id, vm.generation)
        return DaemonClient(vm.address, vm.port, token, vm.generation, self._http)

    async def bind(self, target: Target, *, timeout_s: float | None = None) -> Health:
        """Tell the daemon whose it is and how its agent reaches model and repositories; may be repeated."""
        outside = self._ways(target.vm.id, target.vm.generation)
        wanted = Bind(
            workspace_id=target.workspace_id,
            name=target.name,
            model=outside.model,
            git=outside.git,
            existing=target.existing,
            location=target.location,
            epoch=target.epoch,
            handoff_id=target.handoff_id,
        )
        return await self.client(target.vm).bind(wanted, **({} if timeout_s is None else {"timeout_s": timeout_s}))

    async def probe(self, vm: AnyVm) -> Probe:
        """Try in a VM that belongs to nobody what an agent will need. Raises ``RemoteProblem`` that says what is broken."""
        return await self.client(vm).probe()

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

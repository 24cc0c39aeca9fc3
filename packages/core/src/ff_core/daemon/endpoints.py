"""What a VM is asked before anything else, with as little imported as can be; the rest is in ``work_endpoints``."""

import json
import time

from ff_core.contract.plain import EXEC_MEDIA_TYPE, Binding, Command
from ff_core.daemon import quick
from ff_core.daemon.errors import NotBound
from ff_core.daemon.http import Request, Response, Route, Stream
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.ids import WorkspaceId
from ff_core.settings import VERSION
from ff_core.workspaces.execution import Execution


class Endpoints:
    """One method for each route. All but ``health`` and ``bind``, ``probe`` and ``rest``, need a bound daemon.

    What changes something goes through the engine's gate: refused as a whole while the daemon rests, and known to be
    under way until it is done. A body is read before that, because it may come as slowly as it likes.
    """

    def __init__(self, engine: Engine, execution: Execution, settings: DaemonSettings) -> None:
        self._engine = engine
        self._execution = execution
        self._settings = settings
        self._started_s = time.monotonic()

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/bind", self.bind, methods=["POST"]),
            Route("/v1/exec", self.execute, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """The daemon lives."""
        return self.condition()

    async def bind(self, request: Request) -> Response:
        """Whose VM this is, and how its agents reach the model. Also while it rests: what was asked before begins after."""
        body = await request.body()
        wanted = quick.binding(body) or _binding(body)
        self._engine.gate.touch()
        await self._engine.bind(wanted)
        return self.condition()

    async def execute(self, request: Request) -> Stream:
        """Run a command; it goes through the gate itself, for as long as it runs."""
        workspace_id = require_bound(self._engine)
        body = await request.body()
        self._engine.ownership.require_now(workspace_id)
        return Stream(self._execution.run(quick.command(body) or _command(body)), EXEC_MEDIA_TYPE)

    def condition(self) -> Response:
        """``ff_core.contract.daemon.Health``."""
        workspace_id, seq = self._engine.last_seq()
        moving = self._engine.moving()
        use = self._engine.use()
        health = {
            "vm_id": str(self._settings.vm_id),
            "generation": self._settings.generation,
            "version": VERSION,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "bound": self._engine.bound,
            "workspace_id": None if workspace_id is None else str(workspace_id),
            "journal_seq": seq,
            "working": use.turns,
            "use": use.as_json(),
            "resting": self._engine.gate.resting,
            "moving": None if moving is None else str(moving),
        }
        return Response(json.dumps(health), media_type="application/json")


def require_bound(engine: Engine) -> WorkspaceId:
    """The workspace whose VM this is. Raises ``NotBound`` before somebody said so to this process."""
    workspace = engine.workspaces.current() if engine.bound else None
    if workspace is None:
        raise NotBound
    return workspace.id


def _binding(body: bytes) -> Binding:
    from ff_core.contract.daemon import Bind  # noqa: PLC0415  (see ``quick``)
    from ff_core.daemon.bodies import parse  # noqa: PLC0415

    return parse(body, Bind)


def _command(body: bytes) -> Command:
    from ff_core.contract.execution import ExecRequest  # noqa: PLC0415  (see ``quick``)
    from ff_core.daemon.bodies import parse  # noqa: PLC0415

    return parse(body, ExecRequest)

"""The daemon's endpoints: read the request, call the engine, say the answer. The rest of them are in ``work_endpoints``."""

import asyncio
import time

from ff_core.contract.daemon import Bind, Health, PrepareRepository, Rest
from ff_core.contract.execution import MEDIA_TYPE, ExecRequest
from ff_core.daemon.bodies import read, say
from ff_core.daemon.errors import NotBound
from ff_core.daemon.execution import Execution
from ff_core.daemon.http import Request, Response, Route, Stream
from ff_core.daemon.probing import probe
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.ids import WorkspaceId
from ff_core.settings import VERSION


class Endpoints:
    """One method for each route. All but ``health``, ``probe``, ``bind`` and ``rest`` need a bound daemon.

    What changes something goes through the engine's gate: refused as a whole while the daemon rests, and known to be
    under way until it is done. A body is read before that, because it may come as slowly as it likes.
    """

    def __init__(self, engine: Engine, execution: Execution, settings: DaemonSettings) -> None:
        self._engine = engine
        self._gate = engine.gate
        self._execution = execution
        self._settings = settings
        self._started_s = time.monotonic()
        self._ready = False

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/probe", self.probe, methods=["POST"]),
            Route("/v1/bind", self.bind, methods=["POST"]),
            Route("/v1/rest", self.rest, methods=["POST"]),
            Route("/v1/rest", self.end_rest, methods=["DELETE"]),
            Route("/v1/repository/seed", self.seed, methods=["PUT"]),
            Route("/v1/repository", self.prepare, methods=["PUT"]),
            Route("/v1/repository", self.repository, methods=["GET"]),
            Route("/v1/exec", self.execute, methods=["POST"]),
        ]

    async def health(self, _request: Request) -> Response:
        """The daemon lives."""
        return say(self._health())

    async def probe(self, _request: Request) -> Response:
        """All that an agent works with is there. Whoever is asked this is to be warm, so it gets ready for its first day."""
        found = await probe(self._engine.settings)
        if not self._ready:
            await asyncio.to_thread(_get_ready)
            self._ready = True
        return say(found)

    async def bind(self, request: Request) -> Response:
        """Whose VM this is, and how its agents reach the model. Also while it rests: what was asked before begins after."""
        wanted = await read(request, Bind)
        self._gate.touch()
        await self._engine.bind(wanted)
        return say(self._health())

    async def rest(self, request: Request) -> Response:
        """Take nothing new."""
        self._engine.rest(await read(request, Rest))
        return say(self._health())

    async def end_rest(self, _request: Request) -> Response:
        """Take work again."""
        await self._engine.end_rest()
        return say(self._health())

    async def prepare(self, request: Request) -> Response:
        """Make the checkout; answers when it is there."""
        workspace_id = require_bound(self._engine)
        wanted = await read(request, PrepareRepository)
        with self._gate.request():
            return say(await self._engine.prepare(workspace_id, wanted))

    async def seed(self, request: Request) -> Response:
        """Something for the checkout to start from. Whatever is wrong with it, the checkout can be made without."""
        require_bound(self._engine)
        with self._gate.request():
            return say(await self._engine.workspaces.take_seed(request.stream()))

    async def repository(self, _request: Request) -> Response:
        """The checkout as it stands."""
        workspace_id = require_bound(self._engine)
        self._gate.touch()
        return say(await self._engine.workspaces.status(workspace_id))

    async def execute(self, request: Request) -> Stream:
        """Run a command; it goes through the gate itself, for as long as it runs."""
        require_bound(self._engine)
        return Stream(self._execution.run(await read(request, ExecRequest)), MEDIA_TYPE)

    def _health(self) -> Health:
        workspace_id, seq = self._engine.last_seq()
        use = self._engine.use()
        return Health(
            vm_id=self._settings.vm_id,
            generation=self._settings.generation,
            version=VERSION,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            bound=self._engine.bound,
            workspace_id=workspace_id,
            journal_seq=seq,
            working=use.turns,
            use=use,
            resting=self._gate.resting,
        )


def require_bound(engine: Engine) -> WorkspaceId:
    """The workspace whose VM this is. Raises ``NotBound`` before somebody said so to this process."""
    workspace = engine.workspaces.current() if engine.bound else None
    if workspace is None:
        raise NotBound
    return workspace.id


def _get_ready() -> None:
    from ff_core.daemon.preload import build  # noqa: PLC0415  (what that imports is what we don't want before)

    build()

"""An engine whose VMs are processes: the real daemon in each, a folder for its volume, and no walls at all.

For tests that need real daemons by the hundred, and kill them. Everything it knows is in files, so any number of processes see
the same VMs, and one that is killed in the middle of a call loses none. Held to the same suite as Docker.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

from ff_cloud.testing.engine import ROOM
from ff_cloud.testing.open_python import make_open_python
from ff_cloud.vms.engine.base import (
    Capacity,
    ContainerSeen,
    ContainerState,
    Endpoint,
    EngineEvent,
    EngineReport,
    ImageSeen,
    Limits,
    Observed,
    VmSpec,
)
from ff_cloud.vms.engine.errors import ContainerMissing, ImageInUse, IsolationBroken, RuntimeMissing, StaleFence, VolumeMissing
from ff_cloud.vms.errors import DockerUnreachable, ImageMissing
from ff_core.contract.daemon import ENV_GENERATION, ENV_TOKEN_SHA256, ENV_VM_ID
from ff_core.ids import VmId
from ff_core.world import SystemWorld

T = TypeVar("T")

DAEMON = (sys.executable, "-m", "ff_core.daemon")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 10.0
LOOK_S = 0.05
_SAYS = "listening on 0.0.0.0:"
_FIRST_UID = 1_000_000


@dataclass(frozen=True)
class _Container:
    """What is written of a container; whether it runs is asked of the kernel."""

    id: str
    generation: int
    fence: int
    image: str
    token_sha256: str
    environment: dict[str, str]
    address: str | None
    """Of its present, or last, run."""
    started_at: str | None
    exit_code: int | None
    limits: dict[str, Any]


class ProcessEngine:
    """See :class:`~ff_cloud.vms.engine.base.Engine`. ``root`` is a folder of its own that every user may enter.

    ``command`` is what runs in a VM; without it says that it listens, nobody waits for that.
    """

    def __init__(self, root: Path, *images: str, command: tuple[str, ...] = DAEMON, room: Capacity = ROOM) -> None:
        self.room = room
        self.root = root
        self._images = images
        self._command = command
        self._world = SystemWorld()
        for folder in (root / "vms", root / "locks"):
            folder.mkdir(mode=0o711, exist_ok=True)
            folder.chmod(0o711)
        with contextlib.suppress(FileExistsError), (root / "first-uid").open("x") as file:
            file.write(str(_FIRST_UID + secrets.randbelow(1_000_000) * 1000))
            self._make_programs()

    # Bad things

    def go_away(self, *, away: bool = True) -> None:
        """Answer nobody, or again."""
        path = self.root / "away"
        path.touch() if away else path.unlink(missing_ok=True)

    async def lose(self, vm_id: VmId) -> None:
        """Kill what runs in the VM, as the kernel does when it has no memory left."""
        await self._alone(vm_id, lambda: self._end(vm_id, signal.SIGKILL))

    def lose_all(self) -> None:
        """The same for all VMs, in a moment in which nothing can be awaited."""
        for vm_id in self._vm_ids():
            self._end(vm_id, signal.SIGKILL)

    async def freeze(self, vm_id: VmId) -> None:
        """Let it run and say nothing."""
        pid = self._pid(vm_id)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)

    async def lose_container(self, vm_id: VmId) -> None:
        """Let somebody remove the container, not the volume."""
        await self._alone(vm_id, lambda: self._drop(vm_id))

    async def lose_volume(self, vm_id: VmId) -> None:
        """Let somebody remove both."""
        await self._alone(vm_id, lambda: self._remove(vm_id))

    def volume(self, vm_id: VmId) -> Path:
        """The folder of its files."""
        return self.root / "vms" / str(vm_id) / "volume"

    # The protocol

    async def prepare(self, image: str) -> None:
        """See the protocol."""
        self._require()
        if image not in self._images:
            raise ImageMissing

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """See the protocol."""
        return await self._alone(spec.vm_id, lambda: self._ensure(spec))

    async def observe(self, vm_id: VmId) -> Observed:
        """See the protocol."""
        self._require()
        return self._seen(vm_id)

    async def observe_all(self) -> list[Observed]:
        """See the protocol."""
        self._require()
        return [seen for seen in map(self._seen, self._vm_ids()) if seen.container is not None or seen.volume]

    async def stop(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._alone(vm_id, lambda: self._end(vm_id, signal.SIGTERM))

    async def start(self, vm_id: VmId) -> Endpoint:
        """See the protocol."""
        return await self._alone(vm_id, lambda: self._run(vm_id))

    async def update_limits(self, vm_id: VmId, limits: Limits) -> None:
        """See the protocol."""

        def update() -> None:
            found = self._container(vm_id)
            if found is None:
                raise ContainerMissing
            sizes = [size for size in (found.limits["disk_bytes"], limits.disk_bytes) if size is not None]
            self._write(vm_id, replace(found, limits=asdict(replace(limits, disk_bytes=max(sizes, default=None)))))

        await self._alone(vm_id, update)

    async def remove(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._alone(vm_id, lambda: self._remove(vm_id))

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        """See the protocol."""
        self._require()
        known = self._running()
        while True:
            await self._world.sleep(LOOK_S)
            self._require()
            now = self._running()
            for vm_id in known.keys() | now.keys():
                before, after = known.get(vm_id), now.get(vm_id)
                for kind in _changes(before, after):
                    yield EngineEvent(vm_id, kind)
            known = now

    async def check(self, image: str) -> EngineReport:
        """See the protocol."""
        self._require()
        return EngineReport("processes", "0", image in self._images, "processes", network_ready=True)

    async def capacity(self) -> Capacity:
        """See the protocol."""
        self._require()
        return replace(self.room, containers=sum(bool(runs) for _, runs in self._running().values()))

    async def isolation(self, vm_id: VmId) -> None:
        """See the protocol."""
        self._require()
        seen = self._seen(vm_id).container
        if seen is None:
            raise ContainerMissing
        if not seen.running:
            raise IsolationBroken("The VM does not run, so that its walls can't be looked at. Start it and ask again.")

    async def images(self) -> list[ImageSeen]:
        """See the protocol."""
        self._require()
        return [ImageSeen(f"sha256:{name}", (name,), self._world.now(), 800_000_000) for name in self._images]

    async def remove_image(self, image_id: str) -> None:
        """See the protocol. Nothing is ever removed."""
        self._require()
        if any((found := self._container(vm_id)) is not None and found.image == image_id for vm_id in self._vm_ids()):
            raise ImageInUse

    def close(self) -> None:
        """Kill everything and remove all files; may be repeated."""
        for vm_id in self._vm_ids():
            self._remove(vm_id)
        shutil.rmtree(self.root, ignore_errors=True)

    # What follows runs in threads, alone with its VM, and may be cut off anywhere by a kill.

    def _ensure(self, spec: VmSpec) -> Endpoint:
        found = self._container(spec.vm_id)
        if found is not None and (found.fence > spec.fence or found.generation > spec.generation):
            raise StaleFence
        if found is not None and found.generation < spec.generation:
            self._drop(spec.vm_id)
            found = None
        if spec.volume == "existing" and not self.volume(spec.vm_id).exists():
            raise VolumeMissing
        if found is None:
            if spec.image not in self._images:
                raise ImageMissing
            if spec.runtime not in {None, "runc"}:
                raise RuntimeMissing
            self._make_volume(spec.vm_id)
            made = _Container(
                id=secrets.token_hex(32),
                generation=spec.generation,
                fence=spec.fence,
                image=spec.image,
                token_sha256=spec.token_sha256,
                environment=dict(spec.environment),
                address=None,
                started_at=None,
                exit_code=None,
                limits=asdict(spec.limits),
            )
            self._write(spec.vm_id, made)
        return self._run(spec.vm_id)

    def _run(self, vm_id: VmId) -> Endpoint:
        found = self._container(vm_id)
        if found is None:
            raise ContainerMissing
        if self._pid(vm_id) is None:
            number = self._next("addresses")
            address = f"127.{64 + os.getpid() % 64}.{number // 250 % 250}.{1 + number % 250}"
            found = replace(found, address=address, started_at=self._world.now().isoformat(), exit_code=None)
            self._write(vm_id, found)
            self._spawn(vm_id, found)
        self._await_start(vm_id)
        return Endpoint(found.id, str(found.address), self._port(vm_id))

    def _spawn(self, vm_id: VmId, found: _Container) -> None:
        place = self._place(vm_id)
        uid = (place / "uid").read_text()
        environment = {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            ENV_VM_ID: str(vm_id),
            ENV_GENERATION: str(found.generation),
            ENV_TOKEN_SHA256: found.token_sha256,
            "FF_ROOT": str(self.volume(vm_id)),
            "FF_PORT": "0",
            "FF_USER_ID": uid,
            "FF_CLAUDE": str(self.root / "bin" / "claude"),
            **found.environment,
        }
        (place / "pid").unlink(missing_ok=True)
        # The shell writes down who it is and becomes the daemon, so that a kill of ours leaves nothing unknown; and it is
        # nobody's child, so that it neither dies with us nor waits for us as a zombie.
        script = 'echo $$ >"$0/pid.new" && mv "$0/pid.new" "$0/pid" && exec "$@"'
        argv = list(self._command)
        if self._command == DAEMON and (ours := self.root / "python" / "bin" / "python").exists():
            argv[0] = str(ours)
        with (place / "log").open("wb") as log:
            starter = subprocess.Popen(
                ["setsid", "--fork", "sh", "-c", script, str(place), *argv],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        starter.wait(START_TIMEOUT_S)

    def _await_start(self, vm_id: VmId) -> None:
        """Until it listens or has ended; whoever spawned it may have died meanwhile."""
        place = self._place(vm_id)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (place / "pid").exists() or (self._port(vm_id) == 0 and self._pid(vm_id) is not None):
            if time.monotonic() > deadline:
                raise DockerUnreachable("The process did not start.")
            time.sleep(0.005)

    def _end(self, vm_id: VmId, how: signal.Signals) -> None:
        found, pid = self._container(vm_id), self._pid(vm_id)
        if found is None:
            return
        if pid is not None:
            self._write(vm_id, replace(found, exit_code=128 + how))
            for number, timeout_s in ((how, STOP_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT if number is signal.SIGTERM else number)
                    os.kill(pid, number)
                deadline = time.monotonic() + timeout_s
                while self._pid(vm_id) is not None and time.monotonic() < deadline:
                    time.sleep(0.005)
                if self._pid(vm_id) is None:
                    break
        self._end_others(vm_id)

    def _end_others(self, vm_id: VmId) -> None:
        """What runs as the VM's user dies with its container."""
        if os.geteuid() != 0:
            return
        uid = int((self._place(vm_id) / "uid").read_text())
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(OSError):
                    if process.stat().st_uid == uid:
                        os.kill(int(process.name), signal.SIGKILL)

    def _drop(self, vm_id: VmId) -> None:
        self._end(vm_id, signal.SIGKILL)
        (self._place(vm_id) / "container.json").unlink(missing_ok=True)

    def _remove(self, vm_id: VmId) -> None:
        self._drop(vm_id)
        for _ in range(100):  # somebody may be writing his last
            shutil.rmtree(self._place(vm_id), ignore_errors=True)
            if not self._place(vm_id).exists():
                return
            time.sleep(0.01)

    def _make_programs(self) -> None:
        """What a machine need not have: programs for the probe to find, and a Python that the VM's user may run."""
        make_open_python(self.root / "python")
        folder = self.root / "bin"
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        for name in ("node", "claude"):
            (folder / name).write_text(f"#!/bin/sh\necho {name} of a test\n")
            (folder / name).chmod(0o755)

    def _make_volume(self, vm_id: VmId) -> None:
        place = self._place(vm_id)
        place.mkdir(mode=0o711, exist_ok=True)
        place.chmod(0o711)
        if not (place / "uid").exists():
            first = int((self.root / "first-uid").read_text())
            self._replace(place / "uid", str(first + self._next("users")))
        self.volume(vm_id).mkdir(mode=0o755, exist_ok=True)
        self.volume(vm_id).chmod(0o755)

    def _seen(self, vm_id: VmId) -> Observed:
        found, volume = self._container(vm_id), self.volume(vm_id).exists()
        if found is None:
            return Observed(vm_id, None, volume)
        running = self._pid(vm_id) is not None
        state: ContainerState = "running" if running else "created" if found.started_at is None else "exited"
        seen = ContainerSeen(
            id=found.id,
            state=state,
            address=found.address if running else None,
            generation=found.generation,
            fence=found.fence,
            exit_code=None if state != "exited" else found.exit_code if found.exit_code is not None else 137,
            oom_killed=False,
            started_at=datetime.fromisoformat(found.started_at) if found.started_at else None,
            image=found.image,
        )
        return Observed(vm_id, seen, volume)

    def _running(self) -> dict[VmId, tuple[str, bool]]:
        """Of each container: its id with its run, and whether it runs."""
        running = {}
        for vm_id in self._vm_ids():
            found = self._container(vm_id)
            if found is not None:
                running[vm_id] = (f"{found.id} {found.started_at}", self._pid(vm_id) is not None)
        return running

    def _pid(self, vm_id: VmId) -> int | None:
        """Of the process that is the container's first; None when it does not run. Its number may be somebody else's by now."""
        try:
            pid = int((self._place(vm_id) / "pid").read_text())
            process = Path("/proc") / str(pid)
            state = process.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            mine = state not in "ZX" and self._is_of(process, vm_id)
        except (OSError, ValueError, IndexError):
            return None
        return pid if mine else None

    def _is_of(self, process: Path, vm_id: VmId) -> bool:
        try:
            environment = process.joinpath("environ").read_bytes()
            # There is none while it becomes what it runs.
            return not environment or f"{ENV_VM_ID}={vm_id}\0".encode() in environment
        except PermissionError:  # a daemon lets only root look into it
            return self._command[-1].encode() in process.joinpath("cmdline").read_bytes()

    def _port(self, vm_id: VmId) -> int:
        """What it says that it listens on; 0 before that."""
        if self._command != DAEMON:
            return 1
        said = (self._place(vm_id) / "log").read_text(errors="replace")
        _, says, port = said.partition(_SAYS)
        return int(port.split(maxsplit=1)[0]) if says and "\n" in port else 0

    def _place(self, vm_id: VmId) -> Path:
        return self.root / "vms" / str(vm_id)

    def _vm_ids(self) -> list[VmId]:
        with contextlib.suppress(FileNotFoundError):
            return [VmId(UUID(path.name)) for path in (self.root / "vms").iterdir()]
        return []

    def _container(self, vm_id: VmId) -> _Container | None:
        try:
            return _Container(**json.loads((self._place(vm_id) / "container.json").read_text()))
        except FileNotFoundError:
            return None

    def _write(self, vm_id: VmId, container: _Container) -> None:
        self._replace(self._place(vm_id) / "container.json", json.dumps(asdict(container)))

    def _replace(self, path: Path, text: str) -> None:
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        new.write_text(text)
        new.rename(path)

    def _next(self, name: str) -> int:
        """The next number of a series."""
        with self._locked(name):
            path = self.root / "locks" / f"{name}.count"
            number = int(path.read_text()) + 1 if path.exists() else 0
            self._replace(path, str(number))
            return number

    def _require(self) -> None:
        if (self.root / "away").exists():
            raise DockerUnreachable

    async def _alone(self, vm_id: VmId, act: Callable[[], T]) -> T:
        """Do it in a thread, while nobody else does anything with this VM. Cancelled, it goes on by itself."""
        self._require()

        def locked() -> T:
            with self._locked(str(vm_id)):
                return act()

        return await asyncio.to_thread(locked)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.root / "locks" / name).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


EventKind = Literal["start", "die", "destroy"]


def _changes(before: tuple[str, bool] | None, after: tuple[str, bool] | None) -> list[EventKind]:
    if before == after:
        return []
    kinds: list[EventKind] = []
    if before is not None and before[1] and (after is None or not after[1] or after[0] != before[0]):
        kinds.append("die")
    if before is not None and (after is None or after[0].split()[0] != before[0].split()[0]):
        kinds.append("destroy")
    if after is not None and after[1] and (before is None or not before[1] or after[0] != before[0]):
        kinds.append("start")
    return kinds

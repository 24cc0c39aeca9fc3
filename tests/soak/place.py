"""Where the soak takes place: a server of its own that can be killed and started again, its database, its Docker objects."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from ff_cloud.kit.db import libpq_arguments
from ff_cloud.kit.postgres import LOGIN, EmbeddedPostgres
from ff_cloud.testing.server import Running, running_server
from ff_cloud.testing.vm_network import VmNetwork
from ff_cloud.vms.engine.hardening import LABEL_DEPLOYMENT, name_of
from ff_cloud.vms.image import LATEST
from ff_core.ids import VmId

DOCKER_TIMEOUT_S = 30
DATABASE_TIMEOUT_S = 60.0
_POLL_S = 0.2
SETTINGS = {
    "FF_VM_IMAGE": LATEST,
    "FF_POOL_SIZE": "3",
    "FF_POOL_AT_ONCE": "2",
    "FF_HEALTH_INTERVAL_S": "1",
    "FF_SWEEP_INTERVAL_S": "1",
    "FF_SUSPEND_AFTER_S": "0",
    "FF_VM_RESERVE_BYTES": str(64 << 20),
    "FF_VMS_PER_CPU_MAX": "200",
    **{f"FF_RATE_{kind}": "1000000" for kind in ("AUTH", "READ", "WRITE", "STREAM")},
}


def docker(*arguments: str, check: bool = True) -> str:
    """The Docker client, which is not ours: what it says."""
    command = ["docker", *arguments]
    return subprocess.run(command, check=check, text=True, capture_output=True, timeout=DOCKER_TIMEOUT_S).stdout.strip()


class Place:
    """All of it. ``server`` changes when it is killed; everything here blocks, except where it says so."""

    def __init__(self, folder: Path, network: VmNetwork, stack: ExitStack) -> None:
        self.folder = folder
        self.deployment = network.deployment
        self.network = network
        self.postgres = EmbeddedPostgres(folder / "data" / "postgres")
        self.server_starts = 0
        self._stack = stack
        self.server: Running = self._start()

    @property
    def log(self) -> Path:
        """What all the servers said, one after the other."""
        return self.folder / "server.log"

    def url(self, path: str) -> str:
        """Of the server that runs now."""
        return self.server.url + path

    async def restart(self) -> None:
        """SIGKILL, and a new server over the same folder. It finds the database of the old one still running."""
        os.kill(self.server.pid, signal.SIGKILL)
        self.server = await asyncio.to_thread(self._start)

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement, as the superuser; asks again while the database comes up. Raises ``OperationalError``."""
        deadline = time.monotonic() + DATABASE_TIMEOUT_S
        while True:
            try:
                arguments = libpq_arguments(self.postgres.admin_url(LOGIN))
                with psycopg.connect(**arguments, autocommit=True) as connection:
                    cursor = connection.execute(statement.encode(), values)
                    return list(cursor.fetchall()) if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def containers(self, *, running: bool = False) -> list[str]:
        """Names of ours."""
        every = [] if running else ["--all"]
        found = docker("ps", *every, "--filter", f"label={LABEL_DEPLOYMENT}={self.deployment}", "--format", "{{.Names}}")
        return sorted(found.split())

    def container_of(self, vm_id: VmId) -> str:
        """Its name, there or not."""
        return name_of(self.deployment, vm_id)

    def said_last(self, *words: str, lines_max: int = 40) -> str:
        """The last log lines with any of these words."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if any(word in line for word in words)]
        return "\n".join(line[:600] for line in lines[-lines_max:])

    def _start(self) -> Running:
        self.server_starts += 1
        settings = {**SETTINGS, "FF_DEPLOYMENT": self.deployment}
        return self._stack.enter_context(running_server(self.folder, settings))


@contextmanager
def place(folder: Path, network: VmNetwork) -> Iterator[Place]:
    """Start it. Leaving stops the server, whichever it is by then."""
    with ExitStack() as stack:
        yield Place(folder, network, stack)

"""What the end-to-end tests talk to."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ff_cloud.testing.server import Running, scratch_folder
from ff_cloud.testing.vm_network import VmNetwork
from ff_core.testing.git_server import GitServer
from ff_core.testing.model_api import ModelApi

MODEL_KEY = "sk-ant-e2e-0123456789-secret"


@dataclass(frozen=True)
class Stack:
    """What the tests talk to. ``settings`` are the server's, for a second one like it."""

    network: VmNetwork
    model: ModelApi
    git: GitServer
    git_port: int
    """For another git server on the same address, which VMs may reach too."""
    server: Running
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return self.server.url

    def containers(self) -> list[str]:
        return docker("ps", "-aq", "--filter", f"label=ff.deployment={self.network.deployment}")

    def volumes(self) -> list[str]:
        return docker("volume", "ls", "-q", "--filter", f"label=ff.deployment={self.network.deployment}")


def docker(*argv: str) -> list[str]:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=30).stdout.split()


def free_port(address: str) -> int:
    """A port of that address that nobody listens on now."""
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a server of a test's own; removed with everything in it."""
    folder = scratch_folder("ff-e2e-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def beside(stack: Stack, suffix: str) -> Iterator[dict[str, str]]:
    """Settings of a server of a test's own on the same network; nothing of its deployment is left afterwards."""
    deployment = f"{stack.network.deployment}-{suffix}"
    try:
        yield stack.settings | {"FF_DEPLOYMENT": deployment, "FF_VM_NETWORK": stack.network.name, "FF_POOL_SIZE": "0"}
    finally:
        label = ("--filter", f"label=ff.deployment={deployment}")
        if containers := docker("ps", "-aq", *label):
            docker("rm", "-f", *containers)
        if volumes := docker("volume", "ls", "-q", *label):
            docker("volume", "rm", *volumes)

"""What the end-to-end tests talk to."""

import subprocess
from dataclasses import dataclass

from ff_cloud.testing.server import Running
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
    server: Running
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return self.server.url

    def containers(self) -> list[str]:
        return _docker("ps", "-aq", "--filter", f"label=ff.deployment={self.network.deployment}")

    def volumes(self) -> list[str]:
        return _docker("volume", "ls", "-q", "--filter", f"label=ff.deployment={self.network.deployment}")


def _docker(*argv: str) -> list[str]:
    return subprocess.run(["docker", *argv], capture_output=True, text=True, check=True, timeout=30).stdout.split()

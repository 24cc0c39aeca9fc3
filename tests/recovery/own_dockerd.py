"""A Docker Engine of a test's own, which can be killed without harm to anybody else's."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ff_cloud.vms.image import LATEST

START_S_MAX = 60.0
LOAD_S_MAX = 180.0
ADDRESS = "10.212.0.1/24"


class OwnDockerd:
    """One that has the workspace image. Everything of it is in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "own.sock"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._bridge = f"ff-own-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        # It leaves the machine's rules and the bridge docker0 alone, which are the other Engine's. Without a bridge of its own,
        # or told to have none, or with address pools of its own (when it is started again), it would change or remove that.
        options = {
            "host": self.url,
            "bridge": self._bridge,
            "data-root": self._folder / "docker",
            "exec-root": self._folder / "exec",
            "pidfile": self._folder / "pid",
            **dict.fromkeys(("iptables", "ip6tables", "ip-forward", "ip-masq"), "false"),
        }
        argv = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        with (self._folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_S_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "dockerd.log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def connect(self) -> None:
        """Make its bridge."""
        for words in (f"link add {self._bridge} type bridge", f"address add {ADDRESS} dev {self._bridge}"):
            subprocess.run(["ip", *words.split()], check=True, timeout=START_S_MAX)

    def load(self) -> None:
        """Give it the image."""
        with subprocess.Popen(["docker", "save", LATEST], stdout=subprocess.PIPE) as saving:
            self._ask("load", stdin=saving.stdout, timeout=LOAD_S_MAX)

    def kill(self) -> None:
        """As by the kernel. Its containers live until the next one begins, and end then."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """For good, with everything of it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S_MAX)
        # One that was killed leaves these to its successor, which does not take them for its own.
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self._folder / "exec" / "containerd" / "containerd.pid").read_text()), signal.SIGKILL)
        subprocess.run(["ip", "link", "delete", self._bridge], capture_output=True, check=False, timeout=START_S_MAX)
        subprocess.run(["umount", "--lazy", self._folder / "docker"], capture_output=True, check=False, timeout=START_S_MAX)

    def _answers(self) -> bool:
        with suppress(subprocess.CalledProcessError):
            self._ask("version", timeout=START_S_MAX)
            return True
        return False

    def _ask(self, *argv: str, stdin: object = None, timeout: float) -> None:
        subprocess.run(["docker", "--host", self.url, *argv], stdin=stdin, capture_output=True, timeout=timeout, check=True)  # type: ignore[call-overload]


@contextmanager
def own_dockerd(folder: Path) -> Iterator[OwnDockerd]:
    """Run one for the length of the block."""
    made = OwnDockerd(folder)
    try:
        made.connect()
        made.start()
        made.load()
        yield made
    finally:
        made.stop()

"""``make demo``: work that begins on a laptop, goes on in the cloud while the laptop is off, and comes home with everything.

Everything is what production runs, as processes of their own: ``ff-cloud serve`` with its embedded PostgreSQL, the
Docker Engine, the Claude CLI on both sides, ``ff``, ``ff serve``. The model is Anthropic's when ANTHROPIC_API_KEY is set, else a
scripted one.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from ff_cloud.testing.server import (
    DidNotStart,
    own_environment,
    program,
    running_git_server,
    running_model_api,
    running_server,
    scratch_folder,
    standing_network,
    tail,
)

AT_HOME = "Say hello"
PROMPT_AT_HOME = f"""Add a file hello.py that prints a greeting, run it, and commit it with the message: {AT_HOME}"""
IN_THE_CLOUD = "Greet by name"
PROMPT_IN_THE_CLOUD = f"""Make hello.py greet whoever is named in its first argument, run it, and commit: {IN_THE_CLOUD}"""
GIT = "git -c user.name=Claude -c user.email=claude@example.invalid"
SCRIPT_AT_HOME = f"""
%say I will write hello.py and run it.
%write {{folder}}/hello.py print("Hello from the laptop")
%bash python3 hello.py
%bash git add hello.py && {GIT} commit -m "{AT_HOME}"
%say Done: hello.py greets, and it is committed."""
SCRIPT_IN_THE_CLOUD = f"""
%say I remember hello.py, which I wrote on the laptop. Now it greets by name.
%bash printf 'import sys\\nprint("Hello", *sys.argv[1:])\\n' > hello.py && python3 hello.py from a VM
%bash {GIT} commit -am "{IN_THE_CLOUD}"
%say Done, while nobody was watching."""

STEP_S = 60
PREPARE_S = 180
SCRIPTED_TURN_S = 120
REAL_TURN_S = 600
LOG_LINES = 20
LOG_LINE_CHARS_MAX = 600


class Failed(Exception):
    """A step did not do what it should."""


class Terminal:
    """Prints the demo like a terminal session; in colour on a terminal only."""

    def __init__(self) -> None:
        self.step_name = "preparing"
        self._colours = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        self._count = 0

    def step(self, name: str) -> None:
        """Begin a step."""
        self._count += 1
        self.step_name = name
        print(flush=True)
        self._put("1;34", f"== {self._count}. {name}")

    def command(self, words: Sequence[str]) -> None:
        """Show a command as one would type it."""
        self._put("1", "$ " + " ".join(_quoted(word) for word in words))

    def note(self, text: str) -> None:
        """A remark."""
        self._put("2", text)

    def end(self, text: str, *, good: bool) -> None:
        """The last line."""
        self._put("1;32" if good else "1;31", text)

    def _put(self, style: str, text: str) -> None:
        print(f"\x1b[{style}m{text}\x1b[0m" if self._colours else text, flush=True)


def _quoted(word: str) -> str:
    plain = word and all(char.isalnum() or char in "-_./:=@%,{}" for char in word)
    return word if plain else "'" + word.replace("'", "'\\''") + "'"


class Shell:
    """Runs commands in front of the audience, each with a limit."""

    def __init__(self, terminal: Terminal, environment: Mapping[str, str]) -> None:
        self._terminal = terminal
        self._environment = dict(environment)

    def run(self, words: Sequence[str], *, limit_s: float, stdin: str | None = None, capture: bool = False) -> str:
        """Show a command and run it; raises :class:`Failed` unless it ends well in time. Its output when it was captured."""
        self._terminal.command(words)
        argv = [program(words[0]), *words[1:]] if words[0] in {"ff", "ff-cloud"} else list(words)
        process = subprocess.Popen(
            argv,
            env=self._environment,
            text=True,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE if capture else None,
        )
        try:
            output, _ = process.communicate(stdin, timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"`{words[0]} {words[1]}` took longer than {limit_s:g} s") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if capture:
            print(output, end="", flush=True)
        if process.returncode != 0:
            raise Failed(f"`{words[0]} {words[1]}` ended with code {process.returncode}")
        return output or ""

    def quietly(self, words: Sequence[str]) -> None:
        """Run one of our commands, whatever comes of it: for the end, when nobody is to be told."""
        with suppress(OSError, subprocess.TimeoutExpired):
            argv = [program(words[0]), *words[1:]]
            subprocess.run(argv, env=self._environment, capture_output=True, timeout=STEP_S, check=False)


def play(terminal: Terminal, folder: Path) -> None:
    """The whole demo. Raises :class:`Failed` or :class:`DidNotStart`; leaves nothing running either way."""
    real = bool(os.environ.get("ANTHROPIC_API_KEY"))
    with ExitStack() as stack:
        terminal.step("a network for the VMs, a git server and a model on its gateway")
        network = stack.enter_context(standing_network("demo"))
        git = stack.enter_context(running_git_server(folder, network.gateway, ["hello"]))
        terminal.note(f"git server   {git.url}/hello.git")
        settings = {"FF_DEPLOYMENT": network.deployment, "FF_ALLOW_PLAIN_HTTP_REPOS": "1"}
        settings["FF_POOL_SIZE"] = "0"  # at the end nothing is to be left, not even VMs that wait for the next workspace
        settings["FF_VM_EGRESS_ALLOW"] = urlsplit(git.url).netloc  # VMs reach nothing of this machine but the gateway
        if real:
            settings["FF_MODEL_BASE_URL"] = os.environ.get("ANTHROPIC_BASE_URL", "")
            terminal.note("model        the REAL Anthropic API, with your ANTHROPIC_API_KEY; this costs a few cents")
        else:
            model = stack.enter_context(running_model_api(folder, network.gateway))
            settings |= {"FF_MODEL_BASE_URL": model.url, "FF_MODEL_API_KEY": "demo-key-of-the-scripted-model"}
            terminal.note(f"model        SCRIPTED, at {model.url} (set ANTHROPIC_API_KEY to use the real one)")
            terminal.note("             lines of the prompt that begin with % say what it answers; all else is real")

        terminal.step("the server, with an embedded PostgreSQL")
        terminal.command(["ff-cloud", "serve"])
        server = stack.enter_context(running_server(folder, settings))
        stack.enter_context(_container_logs_on_failure(network.deployment, folder))
        print(server.log.read_text(errors="replace"), end="", flush=True)

        laptop = Shell(terminal, _desktop(folder / "laptop", None if real else model.url))
        stack.callback(laptop.quietly, ["ff", "serve", "--stop"])
        phone = Shell(terminal, _desktop(folder / "phone", None))
        stack.callback(phone.quietly, ["ff", "serve", "--stop"])
        _story(terminal, laptop, phone, server.url, f"{git.url}/hello.git", folder / "laptop", real=real)
        _prove_nothing_is_left(terminal, laptop, network.deployment)

        terminal.step("stopping the server, removing the network")


def _desktop(home: Path, model: str | None) -> dict[str, str]:
    """The environment of somebody with a home of his own; his Claude asks the scripted model, if there is one."""
    home.mkdir()
    more = {"HOME": str(home), "FF_CONFIG_DIR": str(home / "config"), "FF_DESKTOP_DIR": str(home / "desktop"), "FF_KEYRING": "0"}
    if os.geteuid() == 0:
        more["IS_SANDBOX"] = "1"  # Claude lets root skip permissions only where he says that it is contained
    if model is not None:
        more |= {"ANTHROPIC_BASE_URL": model, "ANTHROPIC_API_KEY": "demo-key-of-the-scripted-model"}
    return own_environment(more)


def _story(terminal: Terminal, laptop: Shell, phone: Shell, server: str, repository: str, home: Path, *, real: bool) -> None:
    turn_s = REAL_TURN_S if real else SCRIPTED_TURN_S

    terminal.step("on the laptop: a project, and a workspace in a worktree of its own")
    laptop.run(["git", "clone", "--quiet", repository, str(home / "hello")], limit_s=STEP_S)
    laptop.run(["ff", "project", "add", str(home / "hello")], limit_s=STEP_S)
    made = json.loads(laptop.run(["ff", "new", "demo", "--json"], limit_s=PREPARE_S, capture=True))
    worktree = Path(made["path"])

    terminal.step("a prompt, and the Claude CLI at work on this machine")
    script = "" if real else SCRIPT_AT_HOME.replace("{folder}", str(worktree))
    laptop.run(["ff", "say", "demo", PROMPT_AT_HOME + script, "--wait", "--permissions", "YOLO"], limit_s=turn_s)
    (worktree / "notes.txt").write_text("an untracked note, half a thought\n")
    laptop.run(["git", "-C", str(worktree), "status", "--short", "--branch"], limit_s=STEP_S)

    terminal.step("an account, and off it goes: commits nobody has pushed, the untracked note, the conversation")
    login = ["ff", "login", "--server", server, "--signup", "--email", "demo@example.com", "--password-stdin"]
    password = secrets.token_urlsafe(24) + "\n"
    laptop.run(login, limit_s=STEP_S, stdin=password)
    laptop.run(["ff", "send", "demo", "--plan"], limit_s=STEP_S)
    laptop.run(["ff", "send", "demo", "--yes"], limit_s=PREPARE_S)

    terminal.step("the laptop is closed: nothing of ff runs on it any more")
    laptop.run(["ff", "serve", "--stop"], limit_s=STEP_S)

    terminal.step("from another machine: the same conversation goes on, in the cloud")
    phone.run([word for word in login if word != "--signup"], limit_s=STEP_S, stdin=password)
    script = "" if real else SCRIPT_IN_THE_CLOUD
    phone.run(["ff", "say", "demo", PROMPT_IN_THE_CLOUD + script, "--wait"], limit_s=turn_s)
    phone.run(["ff", "exec", "demo", "--", "git", "status", "--short", "--branch"], limit_s=STEP_S)

    terminal.step("the laptop is open again: pull")
    laptop.run(["ff", "pull", "demo"], limit_s=PREPARE_S)
    log = laptop.run(["git", "-C", str(worktree), "log", "--oneline", "--stat"], limit_s=STEP_S, capture=True)
    if AT_HOME not in log or IN_THE_CLOUD not in log:
        raise Failed("a commit is missing at home")
    if (worktree / "notes.txt").read_text() != "an untracked note, half a thought\n":
        raise Failed("the untracked note is not what it was")
    receipt = json.loads(laptop.run(["ff", "receipt", "demo", "--json"], limit_s=STEP_S, capture=True))
    if receipt["sent"] != receipt["arrived"]:
        raise Failed("the receipt's fingerprints differ")

    terminal.step("and the conversation is at home too")
    prompt = "What did we do?" + ("" if real else "\n%say We wrote hello.py on the laptop, and taught it names in the cloud.")
    laptop.run(["ff", "say", "demo", prompt, "--wait"], limit_s=turn_s)

    terminal.step("deleting the workspace, here and there")
    laptop.run(["ff", "rm", "demo", "--yes", "--force"], limit_s=PREPARE_S)


def _prove_nothing_is_left(terminal: Terminal, shell: Shell, deployment: str) -> None:
    terminal.step("proof that nothing of it is left")
    label = f"label=ff.deployment={deployment}"
    for listing in (["docker", "ps", "--all", "--filter", label], ["docker", "volume", "ls", "--filter", label]):
        shell.run(listing, limit_s=STEP_S)
        if _docker([*listing[1:], "--quiet"]):
            raise Failed(f"`{' '.join(listing)}` still lists something")


@contextmanager
def _container_logs_on_failure(deployment: str, folder: Path) -> Iterator[None]:
    """Keep what the VMs' daemons said before everything is removed."""
    try:
        yield
    except Exception:
        for name in _docker(["ps", "--all", "--filter", f"label=ff.deployment={deployment}", "--format", "{{.Names}}"]).split():
            (folder / f"{name}.log").write_text(_docker(["logs", name]))
        raise


def _docker(arguments: Sequence[str]) -> str:
    done = subprocess.run(
        ["docker", *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=STEP_S, check=False
    )
    return done.stdout


def _keep_logs(folder: Path) -> Path:
    """Move the logs out of the scratch folder; the rest of it goes."""
    kept = Path(tempfile.mkdtemp(prefix="ff-demo-logs-"))
    for log in [*folder.glob("*.log"), *folder.glob("*.jsonl"), *folder.glob("data/postgres/*.log")]:
        shutil.copyfile(log, kept / log.name)
    return kept


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """The first signal stops the demo; further ones must not stop the cleaning up."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """0 when everything was as it should be, 1 when not, 130 when interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    terminal = Terminal()
    began = time.monotonic()
    folder = scratch_folder("ff-demo-")
    try:
        play(terminal, folder)
    except KeyboardInterrupt:
        terminal.end("demo: stopped, everything is cleaned up", good=False)
        return 130
    except Exception as error:  # noqa: BLE001  (whatever it is, say where it happened and keep the logs)
        reason = str(error) if isinstance(error, Failed | DidNotStart) else f"{type(error).__name__}: {error}"
        print("\n-- the end of the server's log --", flush=True)
        for line in tail(folder / "server.log", LOG_LINES).splitlines():
            print(line[:LOG_LINE_CHARS_MAX], flush=True)
        print(flush=True)
        terminal.end(f'demo: FAILED at step "{terminal.step_name}": {reason}\n      logs: {_keep_logs(folder)}', good=False)
        return 1
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)
    print(f"\ntook {time.monotonic() - began:.0f} s", flush=True)
    terminal.end("demo: ok", good=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

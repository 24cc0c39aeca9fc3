"""Records what the real CLI says, for the tests of ``ff_core.claude.translate``: one folder per CLI version.

    python packages/core/tests/transcripts/record.py

A new CLI version is a new folder; the difference to the old one is what to read before the pin is moved.
"""

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import claude_agent_sdk
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, PermissionResultAllow, SystemMessage
from pydantic import SecretStr

from ff_core.claude.options import ClaudeSettings, argv, environment
from ff_core.claude.transport import CliTransport
from ff_core.contract.daemon import ModelAccess
from ff_core.contract.session import PermissionPreset
from ff_core.ids import SessionId, WorkspaceId
from ff_core.sessions.backend import BackendSpec
from ff_core.testing.model_api import ModelApi
from ff_core.world import SystemWorld

BUNDLED = Path(claude_agent_sdk.__file__).parent / "_bundled"
VERSION = (BUNDLED / "claude.version").read_text().split()[0]
INTERRUPT = "<interrupt>"

SCENARIOS = {
    "work": ["%think Let me see.\n%say I write it.\n%write {repo}/a.txt hello\n%bash cat a.txt\n%say Done."],
    "subagent": ["%task %bash echo from-subagent|%say subagent finished\n%say Started it."],
    "background": ["%bg timeout 0.5 tail -f /dev/null\n%say It runs."],
    "interrupt_text": ["%stream 1000 50\n", INTERRUPT],
    "interrupt_tool": ["%bash timeout 20 tail -f /dev/null\n%say over", INTERRUPT],
    "retry": ["%error 529 times=1\n%say Recovered."],
    "cut": ["%drop after=10 how=rst times=1\n%stream 15 100\n%end"],
    "refused": ["%error 403", "%say Still here."],
    "cleared": ["hello", "/clear", "%say Afresh."],
    "compacted": ["hello", "/compact"],
    "usage": ["/usage"],
}
NOISY = {"tools", "slash_commands", "terminal_slash_commands", "skills", "agents", "plugins", "mcp_servers", "models"}


class Recorder(CliTransport):
    """Keeps what passes through."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.heard: list[dict[str, Any]] = []

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        async for message in super().read_messages():
            if not str(message.get("type")).startswith("control_"):
                self.heard.append({key: value for key, value in message.items() if key not in NOISY})
            yield message


async def record(prompts: list[str], folder: Path, api: ModelApi) -> list[dict[str, Any]]:
    world = SystemWorld()
    repo, home = folder / "repo", folder / "home"
    repo.mkdir(parents=True)
    home.mkdir()
    subprocess.run(["git", "init", "-q", str(repo)], check=True)  # noqa: ASYNC221  (a script)
    settings = ClaudeSettings(executable=BUNDLED / "claude", cwd=repo, home=home, run_as=None)
    access = ModelAccess(base_url=api.url, api_key=SecretStr("a-key"))
    session = str(world.new_id())

    async def never(_call: Any) -> Any:
        raise AssertionError

    spec = BackendSpec(
        workspace_id=WorkspaceId(UUID(int=1)),
        session_id=SessionId(UUID(int=2)),
        provider_session_id=session,
        resume=False,
        model=None,
        permissions=PermissionPreset.YOLO,
        decide=never,
    )
    os.environ["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    recorder = Recorder(argv(spec, settings, access), env=environment(spec, settings, access), cwd=repo, run_as=None)

    async def allow(_name: str, _given: dict[str, Any], _context: Any) -> PermissionResultAllow:
        return PermissionResultAllow()

    client = ClaudeSDKClient(ClaudeAgentOptions(can_use_tool=allow), transport=recorder)
    await client.connect()
    ids: list[str] = []
    idle = asyncio.Event()

    async def read() -> None:
        async for message in client.receive_messages():
            if isinstance(message, SystemMessage) and message.data.get("state") == "idle":
                idle.set()

    reading = asyncio.create_task(read())
    for place, prompt in enumerate(prompts):
        idle.clear()
        if prompt == INTERRUPT:
            await client.interrupt()
        else:
            ids.append(str(world.new_id()))

            async def once(text: str = prompt.format(repo=repo), uuid: str = ids[-1]) -> AsyncIterator[dict[str, Any]]:
                content = {"role": "user", "content": text}
                yield {"type": "user", "message": content, "parent_tool_use_id": None, "uuid": uuid}

            await client.query(once())
        if prompts[place + 1 : place + 2] == [INTERRUPT]:
            await asyncio.sleep(1)
        else:
            await asyncio.wait_for(idle.wait(), 30)
            await asyncio.sleep(1)
    await client.disconnect()
    await reading
    return [{"type": "recording", "session_id": session, "prompts": ids}, *recorder.heard]


async def main() -> None:
    target = Path(__file__).parent / VERSION
    target.mkdir(exist_ok=True)
    async with ModelApi() as api:
        for name, prompts in SCENARIOS.items():
            with tempfile.TemporaryDirectory() as folder:
                heard = await record(prompts, Path(folder) / "w", api)
                text = "".join(json.dumps(message) + "\n" for message in heard).replace(f"{folder}/w", "/workspace")
                slug = folder.replace("/", "-").replace("_", "-")
                (target / f"{name}.jsonl").write_text(text.replace(f"{slug}-w", "-workspace"))


asyncio.run(main())

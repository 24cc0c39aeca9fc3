"""What a container shows from outside and allows from inside."""

import asyncio
import json

import pytest
from api_user import User
from stack import MODEL_KEY, Stack

from ff_cloud.vms.engine.docker import docker_engine
from ff_core.ids import VmId

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

KEPT_CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"}


async def test_docker_inspect_shows_limits_and_no_secret(stack: Stack, user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%say hello")
        await heard.turn()
    text = await _docker("inspect", _name(stack, workspace.vm.id))
    (seen,) = json.loads(text)
    host = seen["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert {name.removeprefix("CAP_") for name in host["CapAdd"]} == KEPT_CAPABILITIES
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert not any("seccomp=unconfined" in option for option in host["SecurityOpt"])
    assert host["Init"] is True
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert 0 < host["PidsLimit"] <= 4096
    assert host["LogConfig"]["Config"]["max-size"]
    assert not host["PortBindings"]
    assert host["Privileged"] is False
    assert [mount["Destination"] for mount in seen["Mounts"] if mount["RW"]] == ["/workspace"]
    assert {mount["Destination"] for mount in seen["Mounts"]} <= {"/workspace", "/etc/hosts", "/etc/resolv.conf"}
    assert MODEL_KEY not in text
    hashed = next(line.partition("=")[2] for line in seen["Config"]["Env"] if line.startswith("FF_TOKEN_SHA256="))
    assert len(hashed) == 64
    await user.delete(workspace.id)


async def test_the_agents_shell_is_nobody_special(stack: Stack, user: User) -> None:
    workspace = await user.ready()
    script = """
        id -u; id -g; grep -E '^Cap(Eff|Prm|Bnd|Inh)' /proc/self/status; grep NoNewPrivs /proc/self/status
        touch /etc/x /usr/x /opt/x 2>&1 | grep -c 'Read-only'
        ls /workspace/.ff 2>&1; cat /workspace/.ff/state.db 2>&1 | head -c 100
        mv /workspace/.ff /workspace/elsewhere 2>&1
        for p in /proc/[0-9]*; do
          [ "$(stat -c %u $p)" = 0 ] && cat $p/environ $p/mem 2>/dev/null | tr '\\0' '\\n' | head -3
          [ "$(stat -c %u $p)" = 0 ] && ls $p/fd 2>/dev/null | head -3
        done
        kill -9 1 2>&1; touch /workspace/repo/mine && echo writable
    """
    said = await user.shell(workspace.id, script)
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%bash id -u; id -g; cat /workspace/.ff/state.db; true")
        await heard.turn()
    by_agent = heard.of("tool.finished")[0].output
    lines = [line.strip() for line in said.splitlines()]
    assert lines[:2] == ["1000", "1000"]
    assert [line.split()[1] for line in lines if line.startswith(("CapEff", "CapPrm", "CapInh"))] == ["0" * 16] * 3
    assert "NoNewPrivs:\t1" in said
    assert said.count("Permission denied") >= 2
    assert "FF_TOKEN" not in said
    assert "Operation not permitted" in said
    assert lines[-1] == "writable"
    assert by_agent.splitlines()[:2] == ["1000", "1000"]
    assert "Permission denied" in by_agent
    await user.delete(workspace.id)


async def test_one_workspace_can_not_reach_another(stack: Stack, user: User) -> None:
    mine, other = await asyncio.gather(user.ready(), user.ready())
    address = await _address(stack, other.vm.id)
    knock = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/8430' && echo reached || echo refused"
    assert (await user.shell(mine.id, knock)).splitlines()[-1] == "refused"
    own = "timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8430; printf \"GET /v1/health HTTP/1.0\\r\\n\\r\\n\" >&3; head -1 <&3'"
    assert " 401 " in await user.shell(mine.id, own)
    outside = (await user.shell(other.id, "curl -s -m 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:8430/v1/health")).strip()
    assert outside == "401"
    await asyncio.gather(user.delete(mine.id), user.delete(other.id))


async def test_no_secret_in_the_servers_log(stack: Stack, user: User) -> None:
    await user.call("GET", "/v1/me")
    log = stack.server.log.read_text()
    assert MODEL_KEY not in log
    assert user.http.headers["Authorization"].removeprefix("Bearer ") not in log
    assert "correct horse" not in log


def _name(stack: Stack, vm_id: object) -> str:
    return f"ff-{stack.network.deployment}-{vm_id}"


async def _address(stack: Stack, vm_id: VmId) -> str:
    async with docker_engine(stack.network.deployment) as engine:
        seen = await engine.observe(vm_id)
    assert seen.container is not None
    assert seen.container.address is not None
    return seen.container.address


async def _docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out.decode()

"""The real image on the real Engine: built once, and fit for the hardening every VM runs under."""

import asyncio
import os
import re
import shutil
import ssl
from pathlib import Path

import pytest

from ff_cloud.vms.errors import DockerUnreachable, ImageBuildFailed
from ff_cloud.vms.image import DOCKERFILE, LATEST, Built, build, content_tag, find_root, read_extra_ca

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]
ROOT = find_root(Path(__file__))
HARDENED = [
    "--rm",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--tmpfs=/tmp",
    "--tmpfs=/workspace/home:uid=1000,gid=1000",
    "--env=HOME=/workspace/home",
]


async def run(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    return output.decode()


def copy_of_the_tree(place: Path) -> Path:
    """A tree nobody edits while the test looks at it."""
    shutil.copytree(ROOT / "images", place / "images")
    shutil.copytree(ROOT / "packages/core/src", place / "packages/core/src")
    return place


async def build_here(lines: list[str], root: Path = ROOT) -> Built:
    return await build(root, extra_ca=read_extra_ca(None, os.environ), progress=lines.append)


async def test_the_second_build_of_a_tree_builds_nothing(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    inspect = ("docker", "image", "inspect", "--format={{.Id}} {{.Created}}")
    first = await build_here([], tree)
    made = await run(*inspect, first.tag)
    lines: list[str] = []
    second = await build_here(lines, tree)
    assert (second.tag, second.fresh, lines) == (first.tag, False, [])
    assert await run(*inspect, first.tag) == await run(*inspect, LATEST) == made


async def test_a_failing_step_is_told_and_leaves_no_image(tmp_path: Path) -> None:
    tree = copy_of_the_tree(tmp_path)
    (tree / DOCKERFILE).write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo the disk is purple; exit 3\n")
    lines: list[str] = []
    with pytest.raises(ImageBuildFailed, match="the disk is purple") as failure:
        await build(tree, progress=lines.append)
    assert "code: 3" in failure.value.detail
    assert "the disk is purple" in lines
    assert await run("docker", "images", "--quiet", content_tag(tree, b"")) == ""


async def test_everything_an_agent_needs_runs_hardened_as_dev() -> None:
    tag = (await build_here([])).tag
    script = """set -eu
    test "$(id -un):$(id -u):$(id -g)" = dev:1000:1000
    for tool in git gh node npm npx python3 rg jq make curl; do "$tool" --version >/dev/null; done
    node --version | grep -q '^v24'; python3 --version | grep -q 3.13
    claude --version | grep -q 'Claude Code'; /opt/ff/bin/claude-as-dev --version >/dev/null
    test -r /opt/ff/lib/python3.13/site-packages/ff_core/ids.py
    test ! -e /opt/ff/lib/python3.13/site-packages/ff_core/testing
    test "$(git config --system init.defaultBranch)" = main
    test "$(npm config get prefix)" = /workspace/home/.local
    test "$(find / -xdev -type f -size +300M 2>/dev/null | wc -l)" = 1   # one copy of the CLI
    ! ls /workspace/.ff 2>/dev/null; ! touch /opt/ff/x 2>/dev/null
    grep -q '^CapBnd:.0*$' /proc/self/status
    """
    await run("docker", "run", *HARDENED, "--user=1000:1000", tag, "bash", "-c", script)


async def test_the_daemons_python_has_its_packages_compiled() -> None:
    tag = (await build_here([])).tag
    code = "import claude_agent_sdk, ff_core, pydantic, starlette, uvicorn; print(ff_core.__cached__)"
    cached = (await run("docker", "run", *HARDENED, tag, "/opt/ff/bin/python", "-c", code)).strip()
    await run("docker", "run", *HARDENED, tag, "test", "-f", cached)


async def test_root_starts_claude_as_dev_without_a_capability() -> None:
    tag = (await build_here([])).tag
    shown = await run(
        *("docker", "run", *HARDENED, "--cap-add=SETUID", "--cap-add=SETGID", "--entrypoint=bash", tag, "-c"),
        # the wrapper, with a program in the CLI's place that tells what it was given
        "sed 's,/usr/local/bin/claude,/usr/bin/cat /proc/self/status,' /opt/ff/bin/claude-as-dev > /tmp/w; sh /tmp/w",
    )
    fields = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    assert fields["Uid"].split() == fields["Gid"].split() == ["1000"] * 4
    assert fields["Groups"].split() == []
    assert {int(fields[cap], 16) for cap in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"


def certificates(pem: str) -> set[bytes]:
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
    return {ssl.PEM_cert_to_DER_cert(block) for block in blocks}


async def test_the_trust_holds_mozillas_certificates_and_the_extra_ones() -> None:
    tag = (await build_here([])).tag
    shown = "import pathlib, os; print(pathlib.Path(os.environ['SSL_CERT_FILE']).read_text())"
    trusted = certificates(await run("docker", "run", *HARDENED, tag, "python3", "-c", shown))
    assert len(trusted) > 100
    assert certificates(read_extra_ca(None, os.environ).decode()) <= trusted


async def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DockerUnreachable, match=r"bootstrap\.sh docker"):
        await build(ROOT, docker_url=f"unix://{tmp_path}/absent.sock")

"""A VM says whether it is fit for work before anybody is given it."""

import os
import stat
from pathlib import Path

import pytest


@pytest.fixture
def programs(root):
    """A folder in front of PATH; what is put there is found first."""
    folder = root / "bin"
    folder.mkdir()

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    put("node", "echo v24.0.0")
    put("claude", 'echo "2.1.0 (Claude Code)"; id -u > "$HOME/who"')
    return put


@pytest.fixture
def vm(spawn, root, programs):
    return spawn(root, PATH=f"{root / 'bin'}:{os.environ['PATH']}", FF_CLAUDE=str(root / "bin/claude")).start()


def test_a_vm_that_is_fit_says_what_it_has_bound_or_not(vm):
    found = vm.http.post("/v1/probe")
    assert found.status_code == 200, found.text
    said = found.json()
    assert said["git"].startswith("git version ")
    assert (said["node"], said["claude"], said["volume_writable"]) == ("v24.0.0", "2.1.0 (Claude Code)", True)
    free = os.statvfs(vm.root)
    assert 0 < said["volume_free_bytes"] <= free.f_blocks * free.f_frsize
    assert 0 < said["took_ms"] < 10_000
    assert [path.name for path in (vm.root / ".ff").iterdir() if path.name.startswith("probe")] == []
    if os.geteuid() == 0:
        assert (vm.root / "home/who").read_text() == "1000\n"
    vm.bind()
    assert vm.http.post("/v1/probe", json={}).status_code == 200


@pytest.mark.parametrize(
    ("broken", "script", "said"),
    [
        ("node", "exit 3", "node: it ended with exit code 3"),
        ("claude", "true", "claude: it ended with exit code 0"),
        ("git", "exec /nowhere", "git: it ended with exit code 127"),
    ],
)
def test_what_is_broken_is_named(vm, programs, broken, script, said):
    programs(broken, script)
    refused = vm.http.post("/v1/probe")
    assert (refused.status_code, refused.json()["code"], refused.json()["broken"]) == (503, "probe_failed", [broken])
    assert said in refused.json()["detail"]


def test_everything_that_is_broken_is_named_at_once(vm, programs):
    programs("node", "exit 1")
    programs("claude", "true").chmod(stat.S_IRUSR)
    (vm.root / ".ff/probe").mkdir()
    refused = vm.http.post("/v1/probe").json()
    assert refused["broken"] == ["claude", "node", "volume"]
    (vm.root / ".ff/probe").rmdir()
    programs("node", "echo v24")
    programs("claude", "echo 2.1").chmod(0o755)
    assert vm.http.post("/v1/probe").status_code == 200


def test_the_probe_lies_where_the_user_can_not_look(vm):
    vm.http.post("/v1/probe")
    assert Path(vm.root / ".ff").stat().st_mode & 0o777 == 0o700

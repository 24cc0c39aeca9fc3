"""Which system calls a VM may make: what developers use works, what only an attacker wants does not, on either runtime."""

import asyncio
import errno
import json
import os
import platform
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.engine import Endpoint, Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.hardening import CAPABILITIES, SECCOMP
from ff_cloud.vms.engine.options import EngineOptions
from ff_core.ids import VmId
from ff_core.world import SystemWorld

ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls are told by their numbers there")
LIMITS = Limits(memory_bytes=1 << 30, cpus=2.0, pids=256)
NEVER = {
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "keyctl": (250, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "userfaultfd": (323, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "bpf": (321, 0, 0, 0),
    "unshare a user namespace": (272, 0x10000000),
    "unshare a network": (272, 0x40000000),
    "clone into a user namespace": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone into a pid namespace": (56, 0x20000000 | 17, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "setns": (308, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "fsopen": (430, 0, 0),
    "move_mount": (429, 0, 0, 0, 0, 0),
    "open_tree": (428, 0, 0, 0),
    "mount_setattr": (442, 0, 0, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "kexec_file_load": (320, 0, 0, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, 0, 0, 0),
    "delete_module": (176, 0, 0),
    "clock_settime": (227, 0, 0),
    "settimeofday": (164, 0, 0),
    "adjtimex": (159, 0),
    "chroot": (161, 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "open_by_handle_at": (304, 0, 0, 0),
    "socket AF_ALG": (41, 38, 5, 0),
    "socket AF_VSOCK": (41, 40, 1, 0),
    "socket AF_PACKET": (41, 17, 3, 0),
    "socket NETLINK_NETFILTER": (41, 16, 3, 12),
    "personality without address randomisation": (135, 0x0040000),
}
CALL = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, arguments in json.load(sys.stdin).items():
    ctypes.set_errno(0)
    result = libc.syscall(*map(ctypes.c_long, arguments))
    if result == 0 and arguments[0] == 56:
        os._exit(0)
    found[name] = [result, ctypes.get_errno()]
print(json.dumps(found))
"""
WORKS = {
    "git": "git init -q g && cd g && git config user.email a@b && git config user.name n && echo x > f && git add f && "
    "git commit -qm one && git gc -q && git clone -q . ../c && git -C ../c log --oneline | wc -l",
    "node": """node -e '
        const {Worker} = require("worker_threads"), http = require("http"), fs = require("fs"), cp = require("child_process");
        const os = require("os"); os.networkInterfaces(); os.cpus();
        fs.watch(".", () => {}).close(); cp.execSync("true"); require("crypto").scryptSync("a", "b", 16);
        new Worker("process.exit(0)", {eval: true}).on("exit", () => {
          const server = http.createServer((q, s) => s.end("ok")).listen(0, () =>
            http.get({port: server.address().port}, (answer) => {
              console.log(answer.statusCode === 200 ? 1 : 0); server.close();
            }));
        });'""",
    "npm": 'mkdir -p p/dep && cd p && echo \'{"name":"p","version":"1.0.0","scripts":{"hello":"echo 1"}}\' > package.json'
    ' && echo \'{"name":"dep","version":"1.0.0"}\' > dep/package.json'
    " && npm install --silent --no-audit --no-fund --offline ./dep && test -e node_modules/dep && npm run --silent hello",
    "python": """python3 -c '
import multiprocessing, os, sqlite3, subprocess, tempfile, threading, mmap, socket, select, fcntl, signal, resource, ctypes
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
sqlite3.connect("d.sqlite").execute("pragma journal_mode=wal")
subprocess.run(["true"], check=True, start_new_session=True)
os.memfd_create("m"); os.eventfd(0) if hasattr(os, "eventfd") else None
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1); os.mkfifo("fifo"); os.setpriority(os.PRIO_PROCESS, 0, 5)
os.copy_file_range(os.open("d.sqlite", 0), os.open("e", os.O_CREAT | os.O_WRONLY), 10)
socket.socket(socket.AF_INET6); socket.socketpair(); socket.if_nameindex()
print(1)'""",
    "python -m venv": "python3 -m venv --without-pip v && v/bin/python -c 'print(1)'",
    "make": "printf 'all: a b\\n\\t@cat a b | wc -l\\na b:\\n\\t@echo > $@\\n' > Makefile && make -sj2 all | grep -c 2",
    "claude": "claude --version | grep -c Claude",
    "a debugger": "python3 -c 'import ctypes; print(1 + ctypes.CDLL(None).ptrace(0, 0, 0, 0))'",
    "shell tools": "mkdir t && cd t && tar -cf - -C /etc hostname | tar -xf - && rg -c . hostname "
    "&& find . -newer / | wc -l | grep -c .",
}


def allowed(profile: dict) -> set[str]:
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_what_must_never_be_allowed_is_not_in_the_list():
    names = allowed(json.loads(SECCOMP))
    families = {"io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "userfaultfd"}
    families |= {"perf_event_open", "bpf", "unshare", "setns", "mount", "umount", "umount2", "pivot_root", "fsopen", "fsmount"}
    families |= {"fsconfig", "fspick", "open_tree", "move_mount", "mount_setattr", "clone3", "kexec_load", "kexec_file_load"}
    families |= {"init_module", "finit_module", "delete_module", "clock_settime", "settimeofday", "stime", "adjtimex", "chroot"}
    families |= {"clock_adjtime", "reboot", "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "syslog", "modify_ldt"}
    assert not names & families
    assert json.loads(SECCOMP)["defaultAction"] == "SCMP_ACT_ERRNO"
    [clone] = [rule for rule in json.loads(SECCOMP)["syscalls"] if rule["names"] == ["clone"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]


@pytest.fixture(params=[None, "runc"], ids=["chosen", "runc"])
async def vm(request: pytest.FixtureRequest, image: str) -> AsyncIterator[Endpoint]:
    options = EngineOptions(runtime=request.param)
    async with vm_network() as network, docker_engine(network.deployment, options=options) as engine:
        yield await engine.ensure(VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, LIMITS, "0" * 64))


async def inside(vm: Endpoint, user: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = ["docker", "exec", "-i", "--user", user, "--workdir", "/tmp", "--env", "HOME=/tmp/home", vm.container_id, *argv]
    return await asyncio.to_thread(subprocess.run, command, input=stdin, check=False, capture_output=True, text=True, timeout=90)


@ON_X86
@pytest.mark.docker
@pytest.mark.parametrize("user", ["root", "dev"])
async def test_calls_that_only_an_attacker_makes_fail(vm: Endpoint, user: str):
    done = await inside(vm, user, "python3", "-c", CALL, stdin=json.dumps(NEVER))
    found = json.loads(done.stdout)
    assert found.keys() == NEVER.keys()
    went_through = {
        name: result for name, result in found.items() if result[0] != -1 or result[1] not in {errno.EPERM, errno.ENOSYS}
    }
    assert went_through == {}
    assert found["io_uring_setup"][1] == found["clone3"][1] == errno.ENOSYS, "so that programs take their other way"


@pytest.mark.docker
async def test_what_developers_do_works(vm: Endpoint):
    failed = {}
    for name, script in WORKS.items():
        folder = f"/tmp/w-{abs(hash(name))}"
        done = await inside(vm, "dev", "bash", "-c", f"mkdir -p $HOME {folder} && cd {folder} && {script}")
        if done.stdout.strip().splitlines()[-1:] != ["1"]:
            failed[name] = (done.returncode, done.stdout[-300:], done.stderr[-300:])
    assert failed == {}


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="reads what the runtime was told")
def test_nothing_is_allowed_that_docker_does_not_allow(image: str):
    argv = [
        "docker",
        "run",
        "--detach",
        "--rm",
        "--cap-drop",
        "ALL",
        *(word for cap in CAPABILITIES for word in ("--cap-add", cap)),
    ]
    container = subprocess.run([*argv, image], check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    try:
        configs = [*Path("/run").glob(f"**/io.containerd.runtime.v2.task/moby/{container}/config.json")]
        if not configs:
            pytest.skip("the runtime's configuration is not where Docker usually keeps it")
        theirs = json.loads(configs[0].read_text())["linux"]["seccomp"]
    finally:
        subprocess.run(["docker", "rm", "--force", container], check=True, capture_output=True, timeout=60)
    assert theirs["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed(json.loads(SECCOMP)) - allowed(theirs) == set()

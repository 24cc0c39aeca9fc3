"""``ff exec`` as a program: bytes, codes, standard input, Ctrl-C."""

import json
import signal
import subprocess
from pathlib import Path

import pytest


def test_bytes_pass_unchanged(logged_in, server):
    server.add_workspace()
    result = logged_in.run("exec", "demo", "--", "bytes", stdin=subprocess.DEVNULL)
    assert result.stdout == bytes(range(256)) * 300
    assert result.stderr == b"\xff\xfe problem\n"
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["exit", "0"], 0, ""),
        (["exit", "3"], 3, ""),
        (["exit", "255"], 255, ""),
        (["exit", "-15"], 143, ""),
        (["late"], 124, "killed after 600 s"),
        (["missing"], 125, "error: There is no program named 'missing'. (command_not_found)"),
        (["cut"], 125, "error: The connection"),
    ],
)
def test_the_exit_code_is_the_commands(logged_in, server, words, code, said):
    server.add_workspace()
    result = logged_in("exec", "demo", "-n", "--", *words)
    assert result.exit_code == code, result.output
    assert said in result.stderr


def test_failures_of_ff_itself_are_125(logged_in, server):
    assert logged_in("exec", "nothing", "--", "true").exit_code == 125
    server.add_workspace()
    assert logged_in("exec", "demo", "--", "cat", stdin=b"\xff").exit_code == 125
    assert logged_in("exec", "demo", "--", "cat", stdin="x" * 1_000_001).exit_code == 125
    assert server.seen("POST", "/exec") == []


def test_words_and_directory_arrive_as_typed(logged_in, server):
    server.add_workspace()
    result = logged_in("exec", "demo", "--cwd", "sub dir", "--timeout", "5", "--", "ls", "-la", "--", "a b", "", "--json")
    assert json.loads(result.stdout) == {"argv": ["ls", "-la", "--", "a b", "", "--json"], "cwd": "sub dir", "timeout_s": 5.0}


def test_standard_input_is_forwarded(logged_in, server):
    server.add_workspace()
    assert logged_in("exec", "demo", "--", "cat", stdin="päper\n").stdout == "päper\n"
    assert logged_in("exec", "demo", "--no-stdin", "--", "cat", stdin="paper").stdout == "<none>"


def test_json_is_a_line_per_frame(logged_in, server):
    server.add_workspace()
    result = logged_in("exec", "demo", "--json", "--", "bytes")
    frames = [json.loads(line) for line in result.stdout.splitlines()]
    assert {f["kind"] for f in frames} == {"output", "exit"}
    assert frames[-1] == {"kind": "exit", "exit_code": 0, "timed_out": False}


def test_ctrl_c_cancels_the_command(logged_in, server, until):
    server.add_workspace()
    with logged_in.started("exec", "demo", "--", "sleep") as process:
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == b"Cancelled.\n"
    assert server.exec_cancelled.wait(10)


def test_the_password_and_the_key_are_never_arguments(ff, server, until):
    """While ff waits for its standard input, its own arguments and environment hold no secret."""
    with ff.started("login", "--server", server.url, "--email", "a@b.c", "--password-stdin", stdin=subprocess.PIPE) as process:
        process.stdin.write(b"correct horse")
        process.stdin.flush()
        for file in ("cmdline", "environ"):
            assert b"correct horse" not in Path(f"/proc/{process.pid}/{file}").read_bytes()
        process.communicate(b" battery\n", timeout=20)
        assert process.returncode == 0

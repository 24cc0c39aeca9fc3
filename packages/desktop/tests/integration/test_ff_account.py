"""Logging in and out against a server, and what lies on disk."""

import json
import os
import re
import stat
import subprocess

from ff_core.contract.problem import Problem

PASSWORD = "correct horse battery"


def test_login_stores_tokens_for_the_user_only(ff, server):
    os.umask(0)  # even a careless umask
    try:
        ff.login(server)
    finally:
        os.umask(0o022)
    assert stat.S_IMODE(ff.credentials_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ff.config_dir.stat().st_mode) == 0o700
    stored = json.loads(ff.credentials_path.read_text())
    assert stored["server"] == server.url
    [login] = server.logins.values()
    assert (login.access, login.refresh) == ({stored["tokens"]["access"]}, stored["tokens"]["refresh"])
    assert "key" not in stored
    assert PASSWORD not in ff.credentials_path.read_text()
    assert sorted(p.name for p in ff.config_dir.iterdir()) == ["credentials.json", "credentials.lock"]
    assert re.match(r"ff/\S+ on \S+", server.seen("POST", "/auth/login")[0][2]["user-agent"])


def test_signup_then_whoami_as_json(ff, server):
    result = ff(
        "login", "--server", server.url, "--signup", "--email", "new@example.com", "--password-stdin", "--json", stdin=PASSWORD
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["user"]["email"] == "new@example.com"
    assert json.loads(ff("whoami", "--json").stdout)["user"]["email"] == "new@example.com"
    assert "plan free" in ff("whoami").stdout
    assert "secret" not in result.output


def test_a_short_password_is_refused_here_and_not_quoted(ff, server):
    result = ff("login", "--server", server.url, "--signup", "--email", "a@b.c", "--password-stdin", stdin="hunter2\n")
    assert (result.exit_code, server.requests) == (2, [])
    assert "password" in result.stderr
    assert "hunter2" not in result.output


def test_a_wrong_password_leaves_nothing(ff, server):
    result = ff("login", "--server", server.url, "--email", "a@b.c", "--password-stdin", stdin="x" * 20 + "\n")
    assert result.exit_code == 3
    assert result.stderr == "error: E-mail or password is wrong. (wrong_credentials)\n"
    assert not ff.credentials_path.exists()


def test_without_a_terminal_the_password_is_not_asked_for(ff, server):
    result = ff.run("login", "--server", server.url, "--email", "a@b.c", stdin=subprocess.DEVNULL)
    assert result.returncode == 2
    assert b"--password-stdin" in result.stderr
    assert b"--password " not in ff.run("login", "--help").stdout, "there is no flag that takes the password itself"


def test_login_again_replaces_and_ends_the_old_one(logged_in, server):
    [old] = server.logins
    logged_in.login(server)
    assert len(server.logins) == 1
    assert old not in server.logins


def test_a_login_that_cannot_be_stored_is_ended(ff, server):
    ff.config_dir.write_text("a file where the directory should be")
    result = ff("login", "--server", server.url, "--email", "a@b.c", "--password-stdin", stdin=PASSWORD)
    assert result.exit_code == 1
    assert "credentials_unreadable" in result.stderr
    assert server.logins == {}


def test_logout_ends_and_forgets(logged_in, server):
    result = logged_in("logout", "--json")
    assert json.loads(result.stdout) == {"logged_out": True, "revoked": True}
    assert server.logins == {}
    assert not logged_in.credentials_path.exists()
    assert logged_in("logout").exit_code == 3
    assert logged_in("ls").exit_code == 3


def test_a_file_open_to_others_is_refused(logged_in):
    logged_in.credentials_path.chmod(0o644)
    result = logged_in("ls")
    assert result.exit_code == 5
    assert "chmod 600" in result.stderr
    doctor = json.loads(logged_in("doctor", "--json").stdout)
    assert not doctor["ok"]
    assert "chmod 600" in doctor["checks"][0]["next"]


def test_a_damaged_file_is_named_and_its_key_is_not_shown(logged_in):
    logged_in.credentials_path.write_text('{"server": 5, "key": "ffk_secret0"}')
    result = logged_in("ls")
    assert result.exit_code == 1
    assert "damaged" in result.stderr
    assert "ffk_secret0" not in result.output


def test_plain_http_to_another_machine_needs_insecure(ff):
    result = ff("login", "--server", "http://factory.example.com", "--email", "a@b.c", "--password-stdin", stdin=PASSWORD)
    assert result.exit_code == 2
    assert "insecure_server" in result.stderr


def test_the_environment_may_give_server_and_key(logged_in, server, tmp_path):
    key = next(iter(server.keys.values()))
    server.logins.clear()
    logged_in.environment = {"FF_CONFIG_DIR": str(tmp_path / "none"), "FF_SERVER": server.url, "FF_API_KEY": key}
    assert logged_in("whoami").exit_code == 0
    logged_in.environment = {"FF_CONFIG_DIR": str(tmp_path / "none"), "FF_API_KEY": key}
    assert logged_in("whoami").exit_code == 3


def test_a_bad_environment_is_named_and_not_quoted(ff):
    ff.environment["FF_INSECURE"] = "sesame"
    result = ff("ls")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "FF_INSECURE" in result.stderr
    assert "sesame" not in result.output


def test_doctor_says_what_is_well_and_what_to_do(logged_in, server):
    report = json.loads(logged_in("doctor", "--json").stdout)
    assert [(c["name"], c["ok"]) for c in report["checks"]] == [("configuration", True), ("server", True), ("key", True)]
    assert "9.9" in report["checks"][1]["detail"]
    server.logins.clear()
    result = logged_in("doctor")
    assert result.exit_code == 3
    assert "ff login" in result.stdout


def test_an_absent_server_is_named(logged_in, server):
    stored = json.loads(logged_in.credentials_path.read_text())
    stored["server"] = "http://127.0.0.1:9"
    logged_in.credentials_path.write_text(json.dumps(stored))
    for command in (["ls"], ["doctor"], ["watch", "demo"]):
        result = logged_in(*command)
        assert result.exit_code == 6, result.output
        assert "http://127.0.0.1:9" in result.output
        assert "ff-cloud serve" in result.output


def test_a_reading_request_is_repeated_and_others_are_not(logged_in, server):
    busy = Problem(title="Busy", status=503, code="busy", detail="Try again.")
    server.fail_next.append(busy)
    assert logged_in("ls").exit_code == 0
    server.requests.clear()
    server.fail_next.extend([busy, busy])
    assert logged_in("new", "other", "--cloud", "--no-wait").exit_code == 0
    created = server.seen("POST", "/v1/workspaces")
    assert len(created) == 3
    assert len({headers["idempotency-key"] for _, _, headers, _ in created}) == 1


def test_an_interrupt_is_not_repeated(logged_in, server):
    server.add_session(server.add_workspace())
    server.refuse("interrupt", 503, "vm_unreachable", "The workspace does not answer.")
    result = logged_in("stop", "demo")
    assert result.exit_code == 1
    assert len(server.seen("POST", "/interrupt")) == 1

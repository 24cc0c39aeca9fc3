"""Logins by browser and from another device, tokens that many programs share, and where they are kept."""

import json
import shlex
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from starlette.responses import JSONResponse

from ff_core.contract.problem import Problem

KEYRING = '''
import json, os
from pathlib import Path
from keyring.backend import KeyringBackend

class Real(KeyringBackend):
    """Keeps secrets in a file that the test names."""
    priority = 1
    place = Path(os.environ["TEST_KEYRING"])
    def _all(self):
        return json.loads(self.place.read_text()) if self.place.exists() else {}
    def get_password(self, service, username):
        return self._all().get(service + " " + username)
    def set_password(self, service, username, password):
        self.place.write_text(json.dumps({**self._all(), service + " " + username: password}))
    def delete_password(self, service, username):
        self.place.write_text(json.dumps({k: v for k, v in self._all().items() if k != service + " " + username}))

class PlaintextKeyring(Real):
    """By its name: one of those that only pretend."""
'''
BROWSER = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10).read()"


def expire(ff, seconds=-1):
    stored = json.loads(ff.credentials_path.read_text())
    stored["tokens"]["access_until"] = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()  # noqa: TID251
    ff.credentials_path.write_text(json.dumps(stored))


def browse_with(ff, program):
    """Let ``program`` be the system's browser."""
    ff.config_dir.parent.joinpath("browser.py").write_text(program)
    ff.environment["BROWSER"] = f"{shlex.quote(sys.executable)} {shlex.quote(str(ff.config_dir.parent / 'browser.py'))} %s"


def test_login_by_browser(ff, server):
    browse_with(ff, BROWSER)
    result = ff.run("login", "--server", server.url, "--json")
    assert result.returncode == 0, result.stderr
    assert f"{server.url}/authorize?".encode() in result.stderr, "for when no browser opens"
    assert json.loads(result.stdout)["user"]["email"] == "ada@example.com"
    assert len(server.logins) == 1
    assert b"secret" not in result.stderr + result.stdout
    assert ff("whoami").exit_code == 0


LIAR = """
import sys, urllib.error, urllib.request
from urllib.parse import parse_qs, urlencode, urlsplit
query = parse_qs(urlsplit(sys.argv[1]).query)
back, state = query["redirect_uri"][0], query["state"][0]
for lie in ({"code": "x", "state": "other"}, {"code": "x"}, {"code": "x", "state": state + "x"}):
    try:
        urllib.request.urlopen(back + "?" + urlencode(lie), timeout=10)
        sys.exit("taken")
    except urllib.error.HTTPError as error:
        assert error.code == 404
try:
    elsewhere = urllib.request.Request(back + "?" + urlencode({"state": state}), headers={"Host": "evil.test"})
    urllib.request.urlopen(elsewhere, timeout=10)
    sys.exit("taken")
except urllib.error.HTTPError as error:
    assert error.code == 404
urllib.request.urlopen(back + "?" + urlencode(TRUTH | {"state": state}), timeout=10)
"""


def test_an_answer_of_another_server_is_refused(ff, server):
    browse_with(ff, LIAR.replace("TRUTH", "{'code': 'x', 'iss': 'https://evil.test'}"))
    result = ff.run("login", "--server", server.url)
    assert result.returncode == 5
    assert b"login_refused" in result.stderr
    assert not server.seen("POST", "/auth/token"), "the code goes nowhere"
    assert not ff.credentials_path.exists()


def test_no_is_told(ff, server):
    browse_with(ff, LIAR.replace("TRUTH", f"{{'error': 'access_denied', 'iss': {server.url!r}}}"))
    result = ff.run("login", "--server", server.url)
    assert result.returncode == 5
    assert b"login_refused" in result.stderr


def test_login_from_another_device(ff, server):
    server.polls.extend(["authorization_pending", "authorization_pending"])
    result = ff("login", "--server", server.url, "--device", "--json")
    assert result.exit_code == 0, result.output
    assert f"{server.url}/device" in result.stderr
    assert "BCDF-GHJK" in result.stderr
    assert len(server.seen("POST", "/auth/device/token")) == 3
    assert ff("whoami").exit_code == 0


@pytest.mark.parametrize(("code", "told"), [("access_denied", "login_refused"), ("expired_token", "login_timed_out")])
def test_a_device_login_that_ends(ff, server, code, told):
    server.polls.append(code)
    result = ff("login", "--server", server.url, "--device")
    assert result.exit_code == 5
    assert told in result.stderr


def test_a_sign_up_that_waits_for_its_letter_says_so(ff, server):
    async def accepted(request):
        return JSONResponse({"message": "A letter is on its way."}, 202)

    server.sign_up = accepted
    result = ff(
        "login", "--server", server.url, "--signup", "--email", "a@b.c", "--password-stdin", stdin="correct horse battery"
    )
    assert result.exit_code == 5
    assert "verify_first" in result.stderr
    assert not ff.credentials_path.exists()


def test_flags_that_do_not_fit_are_refused(ff, server):
    for flags in (["--signup"], ["--password-stdin"], ["--email", "a@b.c", "--device"]):
        assert ff("login", "--server", server.url, *flags).exit_code == 2
    assert server.requests == []


def test_ten_programs_at_once_refresh_once(logged_in, server):
    expire(logged_in)
    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(lambda _: logged_in.run("ls", "--json"), range(10)))
    assert [result.returncode for result in results] == [0] * 10, results
    [login] = server.logins.values()
    assert login.refreshed == 1
    assert len(server.seen("POST", "/auth/refresh")) == 1


def test_a_token_the_server_refuses_is_renewed_once_and_the_request_repeated(logged_in, server):
    [login] = server.logins.values()
    login.access.clear()
    assert logged_in("ls").exit_code == 0
    assert login.refreshed == 1
    server.logins.clear()
    result = logged_in("ls")
    assert result.exit_code == 3
    assert "ff login" in result.stderr


def test_a_token_that_ends_soon_is_renewed_before(logged_in, server):
    expire(logged_in, seconds=20)
    assert logged_in("ls").exit_code == 0
    [login] = server.logins.values()
    assert login.refreshed == 1
    expire(logged_in, seconds=60)
    assert logged_in("ls").exit_code == 0
    assert login.refreshed == 1


def test_a_refresh_that_failed_is_tried_again_with_its_request(logged_in, server):
    expire(logged_in)
    server.fail_next.append(Problem(title="Busy", status=503, code="busy", detail="Try again."))
    assert logged_in("ls").exit_code == 0
    assert [path for _, path, _, _ in server.requests] == ["/v1/auth/refresh", "/v1/auth/refresh", "/v1/workspaces"]


def test_logout_with_an_expired_token_ends_the_login(logged_in, server):
    expire(logged_in)
    [login] = server.logins.values()
    login.access.clear()
    assert json.loads(logged_in("logout", "--json").stdout)["revoked"] is True
    assert server.logins == {}


def test_a_file_of_an_earlier_version_goes_on_working(ff, server):
    [(key_id, key)] = server.keys.items()
    ff.config_dir.mkdir()
    old = {"server": server.url, "insecure": False, "email": "a@b.c", "key_id": key_id, "key": key}
    ff.credentials_path.write_text(json.dumps(old))
    ff.credentials_path.chmod(0o600)
    assert ff("whoami").exit_code == 0
    ff.login(server)
    assert server.keys == {}, "the key is revoked when a login replaces it"
    assert "tokens" in json.loads(ff.credentials_path.read_text())


def test_logging_out_with_a_file_of_an_earlier_version(ff, server):
    [(key_id, key)] = server.keys.items()
    ff.config_dir.mkdir()
    old = {"server": server.url, "email": "a@b.c", "key_id": key_id, "key": key}
    ff.credentials_path.write_text(json.dumps(old))
    ff.credentials_path.chmod(0o600)
    assert json.loads(ff("logout", "--json").stdout)["revoked"] is True
    assert server.keys == {}


def keyring_of(ff, tmp_path, name):
    (tmp_path / "test_backend.py").write_text(KEYRING)
    del ff.environment["FF_KEYRING"]
    ff.environment |= {
        "PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": f"test_backend.{name}", "TEST_KEYRING": str(tmp_path / "kept"),
    }  # fmt: skip
    return tmp_path / "kept"


def piped(ff, server):
    return ff.run(
        "login",
        "--server",
        server.url,
        "--email",
        "ada@example.com",
        "--password-stdin",
        "--json",
        input=b"correct horse battery\n",
    )


def test_tokens_lie_in_the_keyring_when_there_is_one(ff, server, tmp_path):
    kept = keyring_of(ff, tmp_path, "Real")
    result = piped(ff, server)
    assert json.loads(result.stdout)["in_keyring"] is True, result
    assert "secret" not in ff.credentials_path.read_text()
    [login] = server.logins.values()
    assert login.refresh in kept.read_text()
    assert stat.S_IMODE(ff.credentials_path.stat().st_mode) == 0o600
    login.access.clear()
    assert ff.run("whoami").returncode == 0, "renewed, and stored there again"
    assert login.refresh in kept.read_text()
    assert ff.run("logout").returncode == 0
    assert json.loads(kept.read_text()) == {}


@pytest.mark.parametrize(
    "name", ["test_backend.PlaintextKeyring", "keyring.backends.fail.Keyring", "keyring.backends.null.Keyring"]
)
def test_a_keyring_that_keeps_no_secrets_is_not_used(ff, server, tmp_path, name):
    kept = keyring_of(ff, tmp_path, "Real")
    ff.environment["PYTHON_KEYRING_BACKEND"] = name
    assert json.loads(piped(ff, server).stdout)["in_keyring"] is False
    assert not kept.exists()
    assert ff.run("whoami").returncode == 0


def test_an_emptied_keyring_is_told(ff, server, tmp_path):
    kept = keyring_of(ff, tmp_path, "Real")
    piped(ff, server)
    kept.write_text("{}")
    result = ff.run("whoami")
    assert result.returncode == 1
    assert b"log in again" in result.stderr
    assert json.loads(piped(ff, server).stdout)["in_keyring"] is True


def test_sessions_are_listed_and_ended(logged_in, server):
    [mine] = server.logins
    for _ in range(2):
        server.begin()
    listed = json.loads(logged_in("sessions", "ls", "--json").stdout)["sessions"]
    assert [(one["id"], one["current"]) for one in listed] == [(one, one == mine) for one in server.logins]
    assert "\x1b" not in logged_in("sessions", "ls").stdout
    other = next(one for one in server.logins if one != mine)
    assert logged_in("sessions", "revoke", other).exit_code == 0
    assert other not in server.logins
    assert logged_in("sessions", "revoke", "ffff").exit_code == 4
    assert logged_in("sessions", "revoke").exit_code == 2
    assert logged_in("sessions", "revoke", "--all", "--others").exit_code == 2
    assert logged_in("sessions", "revoke", "--others").exit_code == 0
    assert list(server.logins) == [mine]
    assert logged_in("sessions", "revoke", "--all").exit_code == 0
    assert server.logins == {}

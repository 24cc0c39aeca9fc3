"""The real ``ff`` logs in at the real server: by a browser on this machine, and from another one."""

import asyncio
import json
import os
import re
import shlex
import sys
from pathlib import Path

import httpx2
import pytest

from ff_cloud.testing.authorization import authorization_app
from ff_core.testing.serve import serving
from ff_core.world import SystemWorld

ALICE = {"email": "alice@example.com", "password": "tangerine lamp over the river"}
BROWSER = r"""
import re, sys
from html import unescape
import httpx2

def fields(page):
    return {name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)}

with httpx2.Client(follow_redirects=True, trust_env=False) as http:
    def submit(page, **more):
        action = unescape(re.search(r'<form method="post" action="([^"]*)"', page.text)[1])
        origin = f"{page.url.scheme}://{page.url.netloc.decode()}"
        return http.post(page.url.join(action), data={**fields(page), **more}, headers={"Origin": origin})

    page = submit(http.get(sys.argv[1]), email="alice@example.com", password="tangerine lamp over the river")
    if len(sys.argv) > 2:
        page = submit(page, user_code=sys.argv[2])
        assert "Did you start this" in page.text, page.text
        assert "Approved" in submit(page, decision="approve").text
    else:
        assert "Let this program in?" in page.text, page.text
        assert "You are logged in" in submit(page, decision="allow").text
"""


@pytest.fixture
async def server(db):
    async with serving(authorization_app(db, SystemWorld())) as url, httpx2.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{url}/v1/auth/signup", json=ALICE)).status_code == 201
        yield url


@pytest.fixture
def browser(tmp_path):
    """A program that logs in and agrees, as a person at a browser would."""
    path = tmp_path / "browser.py"
    path.write_text(BROWSER)
    return path


async def started(tmp_path: Path, *arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FF_")}
    mine = {"FF_CONFIG_DIR": str(tmp_path / "config"), "FF_KEYRING": "0", "PYTHONUNBUFFERED": "1"}
    program = str(Path(sys.executable).with_name("ff"))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        program, *arguments, env={**kept, **mine, **environment}, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


async def ff(tmp_path, *arguments, **environment):
    process = await started(tmp_path, *arguments, **environment)
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode(), errors.decode()


async def test_by_browser_then_refresh_sessions_and_logout(server, browser, tmp_path):
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(browser))} %s"
    code, output, errors = await ff(tmp_path, "login", "--server", server, "--json", BROWSER=command)
    assert code == 0, errors
    assert json.loads(output)["user"]["email"] == "alice@example.com"
    stored = tmp_path / "config" / "credentials.json"
    expired = json.loads(stored.read_text())
    expired["tokens"]["access_until"] = "2020-01-01T00:00:00Z"
    stored.write_text(json.dumps(expired))
    code, output, errors = await ff(tmp_path, "whoami")
    assert code == 0, errors
    assert ", plan " in output
    assert json.loads(stored.read_text())["tokens"]["refresh"] != expired["tokens"]["refresh"]
    code, output, errors = await ff(tmp_path, "sessions", "ls", "--json")
    assert code == 0, errors
    [mine] = [one for one in json.loads(output)["sessions"] if one["current"]]
    assert mine["client"] == "ff"
    assert mine["device"].startswith("ff on ")
    code, output, errors = await ff(tmp_path, "logout", "--json")
    assert (code, json.loads(output)) == (0, {"logged_out": True, "revoked": True})
    stolen = json.loads(json.dumps(expired["tokens"]))
    async with httpx2.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {stolen['access']}"}
        assert (await http.get(f"{server}/v1/me", headers=headers)).status_code == 401


async def test_from_another_machine(server, browser, tmp_path):
    process = await started(tmp_path, "login", "--server", server, "--device")
    told = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
    found = re.search(r"Open (\S+) in a browser, and type (\S+) there", told)
    assert found, told
    person = await asyncio.create_subprocess_exec(sys.executable, str(browser), found[1], found[2])
    assert await asyncio.wait_for(person.wait(), 30) == 0
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors
    code, output, _ = await ff(tmp_path, "whoami")
    assert (code, "alice@example.com" in output) == (0, True)

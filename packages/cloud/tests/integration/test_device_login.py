"""Device logins (RFC 8628) over HTTP, on a real PostgreSQL."""

import asyncio
import re
from html.parser import HTMLParser

import httpx2
import pytest
from sqlalchemy import select, text

from ff_cloud.authorization import tables
from ff_cloud.authorization.policy import USER_CODE_ALPHABET
from ff_cloud.testing.authorization import authorization_app
from ff_core.contract.authorization import DEVICE_GRANT
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ALICE = {"email": "alice@example.com", "password": PASSWORD}
ORIGIN = "https://cloud.test"


class Hidden(HTMLParser):
    """The hidden fields of a page's form."""

    def __init__(self, html):
        super().__init__()
        self.fields = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "input" and found.get("type") == "hidden":
            self.fields[found["name"]] = found["value"]


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def app(db, world):
    return authorization_app(db, world, public_url=ORIGIN)


@pytest.fixture
async def api(app):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=("198.51.100.7", 1)), base_url=ORIGIN) as http:
        assert (await http.post("/v1/auth/signup", json=ALICE)).status_code == 201
        yield http


@pytest.fixture
async def browser(app, api):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ORIGIN) as http:
        yield http


async def submit(browser, path, page, **fields):
    return await browser.post(path, data={**Hidden(page.text).fields, **fields}, headers={"Origin": ORIGIN})


async def code_page(browser):
    """The page to type the code on, after a login."""
    first = await browser.get("/device")
    assert first.headers["location"] == f"{ORIGIN}/login?next=%2Fdevice"
    logged_in = await submit(browser, "/login", await browser.get(first.headers["location"]), **ALICE)
    assert logged_in.headers["location"] == f"{ORIGIN}/device"
    return await browser.get("/device")


async def begin(api, **changes):
    answer = await api.post("/v1/auth/device", data={"client_id": "ff", "device": "build<er>", **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(api, device_code, path="/v1/auth/device/token", **changes):
    form = {"grant_type": DEVICE_GRANT, "client_id": "ff", "device_code": device_code, **changes}
    return await api.post(path, data=form)


async def decide(browser, user_code, decision):
    page = await code_page(browser)
    shown = await submit(browser, "/device", page, user_code=user_code)
    assert shown.status_code == 200, shown.text
    return await submit(browser, "/device", shown, decision=decision)


def told(answer):
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["code"] == answer.json()["error"]
    return answer.json()["error"]


async def test_the_whole_way(browser, api, world, db):
    begun = await begin(api)
    assert re.fullmatch(rf"[{USER_CODE_ALPHABET}]{{4}}-[{USER_CODE_ALPHABET}]{{4}}", begun["user_code"])
    assert len(begun["device_code"]) == 43
    assert (begun["verification_uri"], begun["expires_in"], begun["interval"]) == (f"{ORIGIN}/device", 600, 5)
    assert "verification_uri_complete" not in begun, "nobody is sent a link with the code in it"
    assert told(await poll(api, begun["device_code"])) == "authorization_pending"
    world.advance(150)
    page = await code_page(browser)
    assert begun["user_code"] not in page.text
    shown = await submit(browser, "/device", page, user_code=begun["user_code"].lower().replace("-", " "))
    assert "build&lt;er&gt;" in shown.text
    assert "198.51.100.7" in shown.text
    assert "2 minutes ago" in shown.text
    assert "Did you start this login yourself" in shown.text
    assert "alice@example.com" in shown.text
    assert (await submit(browser, "/device", shown, decision="approve")).status_code == 200
    tokens = await poll(api, begun["device_code"])
    assert tokens.status_code == 200, tokens.text
    me = await api.get("/v1/me", headers={"Authorization": f"Bearer {tokens.json()['access_token']}"})
    assert me.json()["email"] == "alice@example.com"
    assert told(await poll(api, begun["device_code"])) == "invalid_grant"
    async with db.system_transaction() as tx:
        letters = (await tx.execute(text("select recipient from outbox"))).scalars().all()
        acts = (await tx.execute(text("select action, outcome from audit_log where action = 'device.approved'"))).all()
    assert "alice@example.com" in letters
    assert acts == [("device.approved", "ok")]


async def test_the_general_token_endpoint_takes_device_codes_too(browser, api):
    begun = await begin(api)
    await decide(browser, begun["user_code"], "approve")
    assert (await poll(api, begun["device_code"], "/v1/auth/token")).status_code == 200


async def test_slow_down_adds_five_seconds_each_time(api, world):
    code = (await begin(api))["device_code"]
    assert told(await poll(api, code)) == "authorization_pending"
    world.advance(4.9)
    assert told(await poll(api, code)) == "slow_down"
    world.advance(9.9)
    assert told(await poll(api, code)) == "slow_down"
    world.advance(15)
    assert told(await poll(api, code)) == "authorization_pending"


async def test_denied_and_expired(browser, api, world):
    begun = await begin(api)
    assert "Nobody was let in" in (await decide(browser, begun["user_code"], "deny")).text
    assert told(await poll(api, begun["device_code"])) == "access_denied"
    late = await begin(api)
    world.advance(600)
    assert told(await poll(api, late["device_code"])) == "expired_token"
    assert (await submit(browser, "/device", await code_page(browser), user_code=late["user_code"])).status_code == 404


async def test_an_approved_code_that_nobody_fetched_ends_too(browser, api, world):
    begun = await begin(api)
    await decide(browser, begun["user_code"], "approve")
    world.advance(600)
    assert told(await poll(api, begun["device_code"])) == "expired_token"


async def test_a_user_code_is_decided_once(browser, api):
    begun = await begin(api)
    await decide(browser, begun["user_code"], "approve")
    again = await submit(browser, "/device", await browser.get("/device"), user_code=begun["user_code"])
    assert again.status_code == 404
    assert (await poll(api, begun["device_code"])).status_code == 200


async def test_of_twenty_polls_at_once_one_gets_tokens(browser, api):
    begun = await begin(api)
    await decide(browser, begun["user_code"], "approve")
    answers = await asyncio.gather(*(poll(api, begun["device_code"]) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert {told(answer) for answer in answers if answer.status_code == 400} == {"invalid_grant"}


async def test_a_device_code_fits_its_client_only(api):
    code = (await begin(api))["device_code"]
    assert told(await poll(api, code, client_id="other")) == "invalid_client"
    assert told(await poll(api, "x" * 43)) == "invalid_grant"
    assert told(await poll(api, code, grant_type="password")) == "unsupported_grant_type"
    assert told(await api.post("/v1/auth/device", data={"client_id": "other"})) == "invalid_client"
    assert told(await api.post("/v1/auth/device", data={"client_id": "ff", "scope": "admin"})) == "invalid_scope"


async def test_five_wrong_codes_then_a_pause(browser, api):
    begun = await begin(api)
    page = await code_page(browser)
    for _ in range(5):
        assert (await submit(browser, "/device", page, user_code="BBBB-BBBB")).status_code == 404
    stopped = await submit(browser, "/device", page, user_code=begun["user_code"])
    assert stopped.status_code == 429
    assert int(stopped.headers["retry-after"]) > 60


async def test_deciding_is_no_way_around_the_limit(browser, api):
    begun = await begin(api)
    page = await code_page(browser)
    for _ in range(5):
        await submit(browser, "/device", page, user_code="BBBB-BBBB", decision="approve")
    assert (await submit(browser, "/device", page, user_code=begun["user_code"], decision="approve")).status_code == 429
    assert told(await poll(api, begun["device_code"])) == "authorization_pending"


async def test_the_login_must_be_fresh(browser, api, world):
    begun = await begin(api)
    page = await code_page(browser)
    shown = await submit(browser, "/device", page, user_code=begun["user_code"])
    world.advance(301)
    answer = await submit(browser, "/device", shown, decision="approve")
    assert answer.headers["location"].startswith(f"{ORIGIN}/login")
    assert (await browser.get("/account")).status_code == 200, "for other pages the login goes on"
    assert told(await poll(api, begun["device_code"])) == "authorization_pending"


async def test_a_form_from_elsewhere_decides_nothing(browser, api):
    begun = await begin(api)
    page = await code_page(browser)
    fields = {**Hidden(page.text).fields, "user_code": begun["user_code"], "decision": "approve"}
    for headers in ({"Origin": "https://evil.test"}, {}, {"Origin": "null"}):
        assert (await browser.post("/device", data=fields, headers=headers)).status_code == 403
    assert (await browser.post("/device", data={**fields, "csrf": ""}, headers={"Origin": ORIGIN})).status_code == 403
    assert told(await poll(api, begun["device_code"])) == "authorization_pending"


async def test_only_hashes_are_stored(api, db):
    begun = await begin(api)
    async with db.system_transaction() as tx:
        stored = str((await tx.execute(select(tables.device_logins))).all())
    assert begun["device_code"] not in stored
    assert begun["user_code"].replace("-", "") not in stored


async def test_beginning_is_limited_by_address(api):
    answers = [await api.post("/v1/auth/device", data={"client_id": "ff"}) for _ in range(25)]
    assert {answer.status_code for answer in answers[:20]} == {200}
    assert answers[-1].status_code == 429

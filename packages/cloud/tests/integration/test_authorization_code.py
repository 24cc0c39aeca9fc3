"""Logging a program in by a browser: code and PKCE over HTTP, with a cookie jar, on a real PostgreSQL."""

import asyncio
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from sqlalchemy import select

from ff_cloud.authorization import tables
from ff_cloud.authorization.policy import challenge_of
from ff_cloud.testing.authorization import authorization_app
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ALICE = {"email": "alice@example.com", "password": PASSWORD}
VERIFIER = "v" * 50
REDIRECT = "http://127.0.0.1:43210/cb"
ORIGIN = "https://cloud.test"
ASK = {
    "response_type": "code", "client_id": "ff", "redirect_uri": REDIRECT, "state": "the state", "device": "lapt<b>op",
    "code_challenge": challenge_of(VERIFIER), "code_challenge_method": "S256",
}  # fmt: skip


class Form(HTMLParser):
    """The first form of a page: its address and hidden fields."""

    def __init__(self, html):
        super().__init__()
        self.action, self.fields, self.forms = None, {}, 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "form":
            self.forms += 1
            self.action = found["action"] if self.forms == 1 else self.action
        if tag == "input" and found.get("type") == "hidden" and self.forms == 1:
            self.fields[found["name"]] = found["value"]


class Browser:
    """A browser with a cookie jar that sends Origin with forms and doesn't follow redirects by itself."""

    def __init__(self, app, host="192.0.2.1"):
        transport = httpx2.ASGITransport(app, client=(host, 4000))
        self.http = httpx2.AsyncClient(transport=transport, base_url=ORIGIN)

    async def open(self, path):
        return await self.http.get(path)

    async def submit(self, page, *, origin=ORIGIN, **fields):
        form = Form(page.text)
        headers = {} if origin is None else {"Origin": origin}
        return await self.http.post(page.url.join(form.action), data={**form.fields, **fields}, headers=headers)

    async def follow(self, answer):
        assert answer.status_code == 303, answer.text
        return await self.open(answer.headers["location"])

    async def log_in(self, path):
        page = await self.follow(await self.open(path))
        return await self.submit(page, **ALICE)


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def app(db, world):
    return authorization_app(db, world, public_url=ORIGIN)


@pytest.fixture
async def api(app):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ORIGIN) as http:
        assert (await http.post("/v1/auth/signup", json=ALICE)).status_code == 201
        yield http


@pytest.fixture
async def browser(app, api):
    found = Browser(app)
    async with found.http:
        yield found


def asking(**changes):
    return "/authorize?" + urlencode({name: value for name, value in {**ASK, **changes}.items() if value is not None})


def answered(answer):
    assert answer.status_code == 303, answer.text
    location = answer.headers["location"]
    assert location.startswith(REDIRECT + "?")
    return dict(parse_qsl(urlsplit(location).query))


async def allowed(browser, **changes):
    """Log in if needed, allow, and return the code."""
    page = await browser.open(asking(**changes))
    if page.status_code == 303:
        page = await browser.follow(await browser.submit(await browser.follow(page), **ALICE))
    assert page.status_code == 200, page.text
    return answered(await browser.submit(page, decision="allow"))["code"]


async def exchange(api, code, **changes):
    form = {"grant_type": "authorization_code", "client_id": "ff", "redirect_uri": REDIRECT, "code_verifier": VERIFIER}
    return await api.post("/v1/auth/token", data={**form, "code": code, **changes})


def refused(answer, error, status=400):
    assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
    assert answer.json()["code"] == error
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def bearer(answer):
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def test_the_whole_way(browser, api):
    metadata = (await api.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == ORIGIN
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    page = await browser.follow(await browser.log_in(asking()))
    assert "lapt&lt;b&gt;op" in page.text
    assert "<b>" not in page.text
    assert "alice@example.com" in page.text
    answer = answered(await browser.submit(page, decision="allow"))
    assert (answer["state"], answer["iss"]) == ("the state", ORIGIN)
    tokens = await exchange(api, answer["code"])
    assert tokens.status_code == 200, tokens.text
    assert {"access_token", "refresh_token", "expires_in"} <= set(tokens.json())
    assert (await api.get("/v1/me", headers=bearer(tokens))).json()["email"] == "alice@example.com"
    sessions = (await api.get("/v1/auth/sessions", headers=bearer(tokens))).json()["items"]
    assert [one["device"] for one in sessions if one["current"]] == ["ff on lapt<b>op"]


async def test_a_page_runs_nothing_and_is_framed_by_nobody(browser):
    for page in (await browser.follow(await browser.open(asking())), await browser.follow(await browser.log_in(asking()))):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "<script" not in page.text
        assert "http-equiv" not in page.text
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        # With `no-referrer` browsers would send `Origin: null` with our own forms.
        assert page.headers["referrer-policy"] == "same-origin"
        for field in re.findall(r'<input id="(\w+)"', page.text):
            assert f'<label for="{field}">' in page.text
    assert "form-action 'self' http://127.0.0.1:43210" in policy, "browsers check form-action for the redirect too"


async def test_the_cookie_is_bound_to_the_host_and_new_after_a_login(browser):
    login = await browser.follow(await browser.open(asking()))
    before = login.headers["set-cookie"]
    assert re.fullmatch(r"__Host-ff=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", before)
    after = (await browser.submit(login, **ALICE)).headers["set-cookie"]
    assert after.split(";")[0] != before.split(";")[0]


async def test_on_plain_loopback_the_cookie_has_no_prefix(db, world):
    app = authorization_app(db, world)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8420") as http:
        page = await http.get("/login")
        assert re.fullmatch(r"ff=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", page.headers["set-cookie"])


async def test_a_wrong_password_says_so_and_repeats_the_address_escaped(browser):
    login = await browser.open("/login")
    page = await browser.submit(login, email='"><script>@example.com', password="x")
    assert page.status_code == 401
    assert 'role="alert"' in page.text
    assert "<script" not in page.text
    assert (await browser.submit(page, **ALICE)).status_code == 303


@pytest.mark.parametrize("changes", [{"origin": "https://evil.test"}, {"origin": None}, {"origin": "null"}, {"csrf": "0" * 64}])
async def test_a_form_from_elsewhere_is_refused(browser, db, changes):
    page = await browser.follow(await browser.log_in(asking()))
    answer = await browser.submit(page, decision="allow", **changes)
    assert answer.status_code in {303, 403}
    assert "code=" not in answer.headers.get("location", "")
    async with db.system_transaction() as tx:
        assert (await tx.execute(select(tables.codes))).all() == []


async def test_a_form_of_another_browser_is_refused(app, browser):
    other = Browser(app)
    async with other.http:
        theirs = Form((await other.follow(await other.log_in(asking()))).text).fields["csrf"]
    page = await browser.follow(await browser.log_in(asking()))
    answer = await browser.submit(page, decision="allow", csrf=theirs)
    assert "code=" not in answer.headers.get("location", "")


async def test_no_is_told_and_nothing_is_given(browser, api):
    page = await browser.follow(await browser.log_in(asking()))
    answer = answered(await browser.submit(page, decision="deny"))
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "the state", ORIGIN)
    assert "code" not in answer


async def test_every_program_asks_every_time(browser, api):
    await allowed(browser)
    again = await browser.open(asking())
    assert (again.status_code, "location" in again.headers) == (200, False)
    assert 'value="allow"' in again.text


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "http://localhost:1234/cb", "https://127.0.0.1:1234/cb", "http://127.0.0.1/cb", "http://127.0.0.1:1234/cb/",
        "http://127.0.0.1:1234/cb?x=1", "http://127.0.0.1:1234/other", "http://127.0.0.1:1234@evil.test/cb",
        "http://127.0.0.1:0/cb", "http://127.0.0.1:99999/cb",
        "http://127.0.0.2:1234/cb", "https://evil.test/cb", "javascript:alert(1)",
        "ff://cb", "", None,
        "http://127.0.0.1:1234/cb#x", "http://127.0.0.1.evil.test:1234/cb", "http://[::2]:1234/cb", "HTTP://127.0.0.1:1234/cb",
    ],
)  # fmt: skip
async def test_nothing_is_sent_to_an_address_that_is_not_this_machine(browser, redirect_uri):
    answer = await browser.open(asking(redirect_uri=redirect_uri))
    assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert "text/html" in answer.headers["content-type"]


async def test_an_ipv6_loopback_address_is_taken(browser):
    target = "http://[::1]:43210/cb"
    page = await browser.follow(await browser.log_in(asking(redirect_uri=target)))
    answer = await browser.submit(page, decision="allow")
    assert answer.headers["location"].startswith(target + "?state=")


async def test_an_unknown_program_is_told_nothing(browser):
    answer = await browser.open(asking(client_id="other"))
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"state": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
async def test_a_bad_request_is_told_to_the_program(browser, changes, error):
    answer = answered(await browser.open(asking(**changes)))
    assert (answer["error"], answer["iss"]) == (error, ORIGIN)


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 50}, {"code_verifier": "v" * 42}, {"redirect_uri": "http://127.0.0.1:43211/cb"},
        {"redirect_uri": "http://[::1]:43210/cb"},
    ],
)  # fmt: skip
async def test_a_code_fits_one_request_and_a_wrong_try_uses_it_up(browser, api, changes):
    code = await allowed(browser)
    refused(await exchange(api, code, **changes), "invalid_grant")
    refused(await exchange(api, code), "invalid_grant")


async def test_a_code_lives_a_minute(browser, api, world):
    code = await allowed(browser)
    world.advance(60)
    refused(await exchange(api, code), "invalid_grant")


async def test_a_second_use_ends_what_the_code_bought(browser, api):
    code = await allowed(browser)
    tokens = await exchange(api, code)
    assert (await api.get("/v1/me", headers=bearer(tokens))).status_code == 200
    refused(await exchange(api, code, code_verifier="w" * 50), "invalid_grant")
    assert (await api.get("/v1/me", headers=bearer(tokens))).status_code == 401
    again = await api.post("/v1/auth/refresh", json={"refresh_token": tokens.json()["refresh_token"], "client_id": "ff"})
    assert again.status_code == 401


async def test_of_twenty_exchanges_at_once_none_keeps_a_session(browser, api):
    code = await allowed(browser)
    answers = await asyncio.gather(*(exchange(api, code) for _ in range(20)))
    good = [one for one in answers if one.status_code == 200]
    assert len(good) == 1
    assert (await api.get("/v1/me", headers=bearer(good[0]))).status_code == 401


async def test_other_grants_and_odd_forms_are_refused(api):
    refused(await exchange(api, "x", grant_type="password", username="a", password="b"), "unsupported_grant_type")
    refused(await exchange(api, "x", grant_type="refresh_token"), "unsupported_grant_type")
    refused(await exchange(api, "x", client_id="other"), "invalid_client")
    refused(await exchange(api, ""), "invalid_request")
    refused(await exchange(api, "unknown"), "invalid_grant")
    refused(await api.post("/v1/auth/token", json={"grant_type": "authorization_code"}), "invalid_request")
    twice = "grant_type=authorization_code&client_id=ff&client_id=ff"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused(await api.post("/v1/auth/token", content=twice, headers=form), "invalid_request")
    refused(await api.post("/v1/auth/token", content="a=" + "b" * 20_000, headers=form), "invalid_request")


async def test_scopes_that_were_asked_for_bound_the_session(browser, api):
    page = await browser.follow(await browser.log_in(asking(scope="account:read")))
    assert "make, change and delete" not in page.text
    code = answered(await browser.submit(page, decision="allow"))["code"]
    tokens = await exchange(api, code)
    assert (await api.get("/v1/me", headers=bearer(tokens))).status_code == 200
    assert (await api.get("/v1/api-keys", headers=bearer(tokens))).status_code == 200
    answer = await api.post("/v1/api-keys", headers=bearer(tokens), json={"name": "k", "scopes": ["workspaces:read"]})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "/device\n",
        "javascript:alert(1)",
        "/v1/me",
        "/device/../x",
        "device",
        "/login",
    ],
)
async def test_a_login_leads_nowhere_else(browser, following):
    login = await browser.open("/login?" + urlencode({"next": following}))
    answer = await browser.submit(login, **ALICE, next=following)
    assert answer.headers["location"] == f"{ORIGIN}/account"


async def test_nothing_secret_is_stored(browser, api, db):
    code = await allowed(browser)
    cookie = browser.http.cookies["__Host-ff"]
    async with db.system_transaction() as tx:
        rows = str([(await tx.execute(select(table))).all() for table in (tables.codes, tables.browser_sessions)])
    assert rows.count("alice") == 0
    assert code not in rows
    assert cookie not in rows


async def test_a_session_of_a_browser_ends(browser, world):
    await browser.log_in(asking())
    assert (await browser.open("/account")).status_code == 200
    page = await browser.open("/account")
    kept = dict(browser.http.cookies)
    assert (await browser.http.post("/logout", data=Form(page.text).fields, headers={"Origin": ORIGIN})).status_code == 200
    assert dict(browser.http.cookies) == kept
    assert (await browser.open("/account")).status_code == 303, "the old cookie is worth nothing"
    await browser.log_in(asking())
    world.advance(3601)
    assert (await browser.open("/account")).status_code == 303
    assert parse_qs(urlsplit((await browser.open(asking())).headers["location"]).query)["next"][0].startswith("/authorize?")

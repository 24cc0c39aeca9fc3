"""Logging in with GitHub, over real HTTP to a scripted one, on a real PostgreSQL."""

from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import select, text

from ff_cloud.github import tables
from ff_cloud.testing.authorization import authorization_app
from ff_core.testing.github import CLIENT_ID, CLIENT_SECRET, GitHub, Person
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ALICE = {"email": "alice@example.com", "password": PASSWORD}
ORIGIN = "https://cloud.test"


class Hidden(HTMLParser):
    """The hidden fields of a page's first form."""

    def __init__(self, html):
        super().__init__()
        self.fields, self.forms = {}, 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.forms += tag == "form"
        if tag == "input" and found.get("type") == "hidden" and self.forms == 1:
            self.fields[found["name"]] = found["value"]


class Browser:
    """A browser with a cookie jar, at our server and at GitHub."""

    def __init__(self, app):
        self.http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ORIGIN)
        self.outside = httpx2.AsyncClient()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.http.aclose()
        await self.outside.aclose()

    async def at_github(self, answer):
        """Where GitHub sends the browser back to."""
        assert answer.status_code == 303, answer.text
        back = (await self.outside.get(answer.headers["location"])).headers["location"]
        assert back.startswith(f"{ORIGIN}/v1/auth/github/callback?")
        return back

    async def log_in(self, following="/account"):
        started = await self.http.get("/v1/auth/github/start", params={"next": following})
        return await self.http.get(await self.at_github(started))

    async def with_password(self):
        page = await self.http.get("/login")
        return await self.post("/login", page, **ALICE)

    async def post(self, path, page, **fields):
        return await self.http.post(path, data={**Hidden(page.text).fields, **fields}, headers={"Origin": ORIGIN})

    async def link(self):
        began = await self.post("/account", await self.http.get("/account"))
        return await self.http.get(await self.at_github(began))

    async def email(self):
        page = await self.http.get("/account")
        return page.text.partition("logged in as <strong>")[2].partition("<")[0] or None


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def github():
    async with GitHub() as scripted:
        yield scripted


def app_of(db, world, github, **settings):
    mine = {
        "github_client_id": CLIENT_ID,
        "github_client_secret": CLIENT_SECRET,
        "github_url": github.url,
        "github_api_url": github.url,
    }
    return authorization_app(db, world, public_url=ORIGIN, **{**mine, **settings})


@pytest.fixture
async def app(db, world, github):
    return app_of(db, world, github)


@pytest.fixture
async def browser(app):
    async with Browser(app) as found:
        yield found


@pytest.fixture
async def api(app):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=ORIGIN) as http:
        yield http


async def alice(api):
    answer = await api.post("/v1/auth/signup", json=ALICE)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def everything(db):
    """What the database knows of accounts and identities."""
    async with db.system_transaction() as tx:
        users = (await tx.execute(text("select email from users order by email"))).scalars().all()
        linked = (await tx.execute(select(tables.identities.c.subject).order_by(tables.identities.c.subject))).scalars().all()
        return users, linked


async def test_a_first_login_opens_an_account_and_the_next_finds_it(browser, github, db, app):
    answer = await browser.log_in("/device")
    assert answer.headers["location"] == f"{ORIGIN}/device"
    assert await browser.email() == "octocat@example.com"
    github.agrees_as = Person(1001, "renamed", None, [("other@example.com", True, True)])
    async with Browser(app) as later:
        await later.log_in()
        assert await later.email() == "octocat@example.com", "known by number; names and addresses may change"
    assert await everything(db) == (["octocat@example.com"], ["1001"])


async def test_what_github_is_asked(browser, github):
    await browser.log_in()
    (_, asked), (_, exchanged) = github.seen[0], github.seen[1]
    assert asked["scope"] == "user:email"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == exchanged["redirect_uri"] == f"{ORIGIN}/v1/auth/github/callback"
    assert len(asked["state"]) == 43
    assert len(exchanged["code_verifier"]) == 43


async def test_a_state_is_good_once(browser, db, app):
    back = await browser.at_github(await browser.http.get("/v1/auth/github/start"))
    assert (await browser.http.get(back)).status_code == 303
    assert (await browser.http.get(back)).status_code == 400


async def test_a_state_of_another_browser_fails_and_spoils_nothing(browser, app, db):
    back = await browser.at_github(await browser.http.get("/v1/auth/github/start"))
    async with Browser(app) as victim:
        await victim.http.get("/login")
        assert (await victim.http.get(back)).status_code == 400
        assert await victim.email() is None
    assert await everything(db) == ([], [])
    assert (await browser.http.get(back)).status_code == 303


async def test_a_state_lives_ten_minutes(browser, world, db):
    back = await browser.at_github(await browser.http.get("/v1/auth/github/start"))
    world.advance(600)
    assert (await browser.http.get(back)).status_code == 400
    assert await everything(db) == ([], [])


@pytest.mark.parametrize("query", ["", "?state=", "?code=x", "?state=made-up&code=x", "?state=" + "x" * 600, "?state=a&state=b"])
async def test_an_answer_that_nobody_asked_for_is_refused(browser, query):
    assert (await browser.http.get("/v1/auth/github/callback" + query)).status_code == 400


async def test_denied_consent_leaves_nothing(browser, github, db):
    github.agrees_as = None
    answer = await browser.log_in()
    assert (answer.status_code, "GitHub did not confirm" in answer.text) == (400, True)
    assert await everything(db) == ([], [])
    assert await browser.email() is None


async def test_a_github_out_of_order_leaves_nothing(browser, github, db):
    github.out_of_order = True
    assert (await browser.log_in()).status_code == 503
    assert await everything(db) == ([], [])


async def test_a_wrong_code_is_refused(browser, db):
    back = await browser.at_github(await browser.http.get("/v1/auth/github/start"))
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert (await browser.http.get("/v1/auth/github/callback", params={"state": state, "code": "x"})).status_code == 400
    assert await everything(db) == ([], [])


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [("a@example.com", True, False)],
        [("a@example.com", False, True)],
        [("a@example.com", True, False), ("b@example.com", False, True)],
    ],
)
async def test_only_a_primary_verified_address_opens_an_account(browser, github, db, emails):
    github.agrees_as = Person(7, "nobody", None, emails)
    assert (await browser.log_in()).status_code == 403
    assert await everything(db) == ([], [])


async def test_a_password_account_is_not_joined_by_its_address(browser, github, api, db):
    await alice(api)
    github.agrees_as = Person(7, "mallory", None, [("Alice@Example.com", True, True)])
    answer = await browser.log_in()
    assert (answer.status_code, "Log in to it first" in answer.text) == (409, True)
    assert await browser.email() is None
    assert await everything(db) == (["alice@example.com"], [])


async def test_who_is_logged_in_links_and_then_logs_in_with_it(browser, github, api, app, db):
    who = await alice(api)
    github.agrees_as = Person(7, "al<i>ce", None, [("elsewhere@example.com", True, False)])
    await browser.with_password()
    assert (await browser.link()).headers["location"] == f"{ORIGIN}/account"
    assert "al&lt;i&gt;ce" in (await browser.http.get("/account")).text
    [linked] = (await api.get("/v1/me/identities", headers=who)).json()["items"]
    assert (linked["provider"], linked["subject"], linked["login"]) == ("github", "7", "al<i>ce")
    async with Browser(app) as later:
        await later.log_in()
        assert await later.email() == "alice@example.com"
    assert (await api.delete("/v1/me/identities/github", headers=who)).status_code == 204
    assert (await api.delete("/v1/me/identities/github", headers=who)).status_code == 404
    assert await everything(db) == (["alice@example.com"], [])


async def test_an_identity_has_one_owner(browser, github, api, app, db):
    async with Browser(app) as octocat:
        await octocat.log_in()
    await alice(api)
    await browser.with_password()
    assert (await browser.link()).status_code == 409
    github.agrees_as = Person(8, "mine", None, [])
    assert (await browser.link()).status_code == 303
    github.agrees_as = Person(9, "second", None, [])
    page = await browser.http.get("/login")
    began = await browser.post("/account", page)
    assert (await browser.http.get(await browser.at_github(began))).status_code == 409, "one GitHub account for each of ours"
    assert (await everything(db))[1] == ["1001", "8"]


async def test_linking_needs_a_form_of_ours_and_a_fresh_login(browser, api, world):
    await alice(api)
    await browser.with_password()
    page = await browser.http.get("/account")
    assert (await browser.http.post("/account", data=Hidden(page.text).fields)).status_code == 403
    world.advance(301)
    assert (await browser.post("/account", page)).headers["location"].startswith(f"{ORIGIN}/login")


async def test_the_last_way_to_log_in_stays(browser, api, db, app):
    await browser.log_in()
    began = await api.post("/v1/auth/device", data={"client_id": "ff"})
    page = await browser.http.get("/device")
    shown = await browser.post("/device", page, user_code=began.json()["user_code"])
    await browser.post("/device", shown, decision="approve")
    tokens = await api.post("/v1/auth/device/token", data={"client_id": "ff", "device_code": began.json()["device_code"]})
    who = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    answer = await api.delete("/v1/me/identities/github", headers=who)
    assert (answer.status_code, answer.json()["code"]) == (409, "last_login")
    assert await everything(db) == (["octocat@example.com"], ["1001"])


async def test_a_stranger_sees_and_unlinks_nothing(browser, api, db):
    await browser.log_in()
    who = await alice(api)
    assert (await api.get("/v1/me/identities", headers=who)).json()["items"] == []
    assert (await api.delete("/v1/me/identities/github", headers=who)).status_code == 404
    assert await everything(db) == (["alice@example.com", "octocat@example.com"], ["1001"])
    assert (await api.get("/v1/me/identities")).status_code == 401
    assert (await api.delete("/v1/me/identities/github")).status_code == 401


async def test_no_token_of_github_is_stored(browser, db, github):
    await browser.log_in()
    async with db.system_transaction() as tx:
        names = (
            await tx.execute(text("select table_name from information_schema.tables where table_schema = 'public'"))
        ).scalars()
        dump = str([(await tx.execute(text(f"select * from {name}"))).all() for name in sorted(set(names) - {"alembic_version"})])
    assert "1001" in dump
    assert "gho_" not in dump


async def test_where_sign_up_is_closed_only_known_people_log_in(db, world, github):
    async with Browser(app_of(db, world, github, signup_open=False)) as browser:
        assert (await browser.log_in()).status_code == 403
    assert await everything(db) == ([], [])


async def test_without_an_app_there_is_no_github(db, world):
    async with Browser(authorization_app(db, world, public_url=ORIGIN)) as browser:
        assert (await browser.http.get("/v1/auth/github/start")).status_code == 404
        assert "github" not in (await browser.http.get("/login")).text.lower()


@pytest.mark.parametrize("following", ["https://evil.test/", "//evil.test", "/\\evil.test", "/v1/me"])
async def test_a_login_leads_nowhere_else(browser, following):
    assert (await browser.log_in(following)).headers["location"] == f"{ORIGIN}/account"

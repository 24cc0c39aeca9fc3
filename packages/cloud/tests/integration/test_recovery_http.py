"""Verification, forgotten passwords, changes of password and e-mail, over HTTP."""

import asyncio

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.auth.recovery import RESET_LIFE, VERIFY_LIFE
from ff_cloud.authorization.mail_pages import router as mail_pages
from ff_cloud.testing.accounts import MASTER, accounts_app
from ff_cloud.testing.mail import Mailbox
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
OTHER = "seven umbrellas in a quiet harbour"
ALICE = {"email": "alice@example.com", "password": PASSWORD}


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def mailbox(db, world):
    return Mailbox(db, world, MASTER)


@pytest.fixture
async def app(db, world):
    return accounts_app(db, world, routers=(mail_pages,))


def client_of(app, host="192.0.2.1"):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(host, 4000)), base_url="http://cloud")


@pytest.fixture
async def http(app):
    async with client_of(app) as client:
        yield client


def bearer(credential):
    return {"Authorization": f"Bearer {credential}"}


async def sign_up(http, **changes):
    answer = await http.post("/v1/auth/signup", json={**ALICE, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def log_in(http, **changes):
    return await http.post("/v1/auth/login", json={**ALICE, **changes})


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


async def column(db, query):
    async with db.system_transaction() as tx:
        return await tx.scalar(text(query))


async def test_a_sign_up_mails_a_link_that_confirms_the_email_once(http, db, mailbox):
    await sign_up(http)
    [letter] = await mailbox.collect()
    assert (letter.to, letter.subject) == ("alice@example.com", "Confirm your e-mail")
    assert letter.link.startswith("http://cloud/verify?token=")
    assert await column(db, "select email_verified_at from users") is None
    answer = await http.post("/v1/auth/verify", json={"token": letter.token})
    assert (answer.status_code, answer.json()) == (200, {"email": "alice@example.com"})
    assert await column(db, "select email_verified_at from users") is not None
    problem(await http.post("/v1/auth/verify", json={"token": letter.token}), 422, "link_invalid")


async def test_a_link_leads_where_the_server_is_and_not_where_a_request_says(http, mailbox):
    await sign_up(http)
    await http.post(
        "/v1/auth/forgot", json={"email": ALICE["email"]}, headers={"Host": "evil.example", "X-Forwarded-Host": "evil"}
    )
    assert all("evil" not in letter.link for letter in await mailbox.collect())


async def test_a_reset_sets_the_password_once_and_ends_every_session_and_logs_nobody_in(http, mailbox):
    tokens = await sign_up(http)
    other = (await log_in(http)).json()
    assert (await http.post("/v1/auth/forgot", json={"email": "ALICE@example.com"})).status_code == 202
    token = await mailbox.link("alice@example.com")
    answer = await http.post("/v1/auth/reset", json={"token": token, "password": OTHER})
    assert (answer.status_code, answer.content) == (204, b"")
    for each in (tokens, other):
        problem(await http.get("/v1/me", headers=bearer(each["access_token"])), 401, "not_logged_in")
        refused = await http.post("/v1/auth/refresh", json={"refresh_token": each["refresh_token"]})
        assert refused.status_code == 401
    problem(await log_in(http), 401, "bad_credentials")
    assert (await log_in(http, password=OTHER)).status_code == 200
    problem(await http.post("/v1/auth/reset", json={"token": token, "password": PASSWORD}), 422, "link_invalid")
    assert (await mailbox.collect())[-1].subject == "Your password was changed"


async def test_of_many_uses_of_a_link_at_once_one_counts(http, mailbox):
    await sign_up(http)
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    token = await mailbox.link("alice@example.com")
    answers = await asyncio.gather(
        *(http.post("/v1/auth/reset", json={"token": token, "password": f"{OTHER} {n}"}) for n in range(10))
    )
    assert sorted(answer.status_code for answer in answers) == [204] + [422] * 9


async def test_a_reset_link_ends_after_15_minutes_and_a_verification_after_a_day(http, world, mailbox):
    assert (RESET_LIFE.total_seconds(), VERIFY_LIFE.total_seconds()) == (15 * 60, 24 * 3600)
    await sign_up(http)
    verify = await mailbox.link("alice@example.com")
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    reset = await mailbox.link("alice@example.com")
    world.advance(15 * 60)
    problem(await http.post("/v1/auth/reset", json={"token": reset, "password": OTHER}), 422, "link_invalid")
    world.advance(24 * 3600)
    problem(await http.post("/v1/auth/verify", json={"token": verify}), 422, "link_invalid")


async def test_links_are_good_for_one_purpose_and_a_newer_one_makes_the_older_void(http, mailbox):
    await sign_up(http)
    verify = await mailbox.link("alice@example.com")
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    first = await mailbox.link("alice@example.com")
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    second = await mailbox.link("alice@example.com")
    for wrong in (verify, first, second[:-1], "x", second + "x"):
        problem(await http.post("/v1/auth/reset", json={"token": wrong, "password": OTHER}), 422, "link_invalid")
    for wrong in (first, second):
        problem(await http.post("/v1/auth/verify", json={"token": wrong}), 422, "link_invalid")
        problem(await http.get("/v1/me", headers=bearer(wrong)), 401, "not_logged_in")
    assert (await http.post("/v1/auth/reset", json={"token": second, "password": OTHER})).status_code == 204


async def test_a_refused_password_leaves_the_link_good(http, mailbox):
    await sign_up(http)
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    token = await mailbox.link("alice@example.com")
    problem(await http.post("/v1/auth/reset", json={"token": token, "password": "alice@example.com"}), 422, "password_refused")
    assert (await http.post("/v1/auth/reset", json={"token": token, "password": OTHER})).status_code == 204


async def test_forgot_answers_alike_for_known_unknown_and_disabled_and_mails_only_the_known(http, db, mailbox):
    await sign_up(http)
    await sign_up(http, email="dora@example.com")
    await mailbox.collect()
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set disabled_at = now() where email like 'dora%'"))
    answers = [
        await http.post("/v1/auth/forgot", json={"email": email})
        for email in ("alice@example.com", "nobody@example.com", "dora@example.com")
    ]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    assert answers[0].status_code == 202
    assert [letter.to for letter in await mailbox.collect()] == ["alice@example.com"]
    assert await column(db, "select count(*) from outbox") == 0


async def test_nothing_that_opens_an_account_is_stored_in_the_clear(http, db, mailbox):
    await sign_up(http)
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    stored = ""
    async with db.system_transaction() as tx:
        for table in ("mail_links", "outbox", "audit_log", "rate_limits"):
            stored += str((await tx.execute(text(f"select to_jsonb(t) from {table} t"))).all())
    for letter in await mailbox.collect():
        assert letter.token not in stored


async def test_a_mailbox_can_not_be_filled_and_links_can_not_be_guessed(app, http, mailbox):
    statuses = []
    for host in range(5):
        async with client_of(app, f"198.51.100.{host}") as client:
            statuses.append((await client.post("/v1/auth/forgot", json={"email": ALICE["email"]})).status_code)
    assert statuses == [202, 202, 202, 429, 429], "per e-mail, from wherever"
    guesses = [(await http.post("/v1/auth/verify", json={"token": f"guess {n}"})).status_code for n in range(31)]
    assert guesses == [422] * 30 + [429]


async def test_a_change_of_password_needs_the_present_one_and_keeps_only_the_own_session(http, mailbox):
    mine = (await sign_up(http))["access_token"]
    other = (await log_in(http)).json()["access_token"]
    await mailbox.collect()
    wrong = {"current_password": OTHER, "password": OTHER}
    problem(await http.post("/v1/me/password", json=wrong, headers=bearer(mine)), 403, "password_wrong")
    right = {"current_password": PASSWORD, "password": OTHER}
    assert (await http.post("/v1/me/password", json=right, headers=bearer(mine))).status_code == 204
    assert (await http.get("/v1/me", headers=bearer(mine))).status_code == 200
    problem(await http.get("/v1/me", headers=bearer(other)), 401, "not_logged_in")
    problem(await log_in(http), 401, "bad_credentials")
    assert [(letter.to, letter.subject) for letter in await mailbox.collect()] == [
        ("alice@example.com", "Your password was changed")
    ]


async def test_an_api_key_changes_neither_password_nor_email_nor_name(http):
    mine = (await sign_up(http))["access_token"]
    key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=bearer(mine))).json()["key"]
    for method, path, body in (
        ("POST", "/v1/me/password", {"current_password": PASSWORD, "password": OTHER}),
        ("POST", "/v1/me/email", {"current_password": PASSWORD, "email": "b@example.com"}),
        ("PATCH", "/v1/me", {"name": "B"}),
    ):
        problem(await http.request(method, path, json=body, headers=bearer(key)), 403, "login_required")


async def test_guessing_the_present_password_is_limited(http):
    mine = (await sign_up(http))["access_token"]
    wrong = {"current_password": OTHER, "password": OTHER}
    statuses = [(await http.post("/v1/me/password", json=wrong, headers=bearer(mine))).status_code for _ in range(11)]
    assert statuses == [403] * 10 + [429]


async def test_a_new_email_counts_when_its_link_was_opened_and_the_old_one_hears_of_it(http, mailbox):
    mine = (await sign_up(http))["access_token"]
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    old_link = await mailbox.link("alice@example.com")
    wanted = {"current_password": PASSWORD, "email": "New@example.com"}
    problem(
        await http.post("/v1/me/email", json={**wanted, "current_password": OTHER}, headers=bearer(mine)), 403, "password_wrong"
    )
    assert (await http.post("/v1/me/email", json=wanted, headers=bearer(mine))).status_code == 202
    letters = await mailbox.collect()
    assert {(letter.to, letter.subject) for letter in letters} == {
        ("new@example.com", "Confirm your new e-mail"),
        ("alice@example.com", "Your e-mail is about to change"),
    }
    assert (await http.get("/v1/me", headers=bearer(mine))).json()["email"] == "alice@example.com"
    token = await mailbox.link("new@example.com")
    assert (await http.post("/v1/auth/verify", json={"token": token})).json() == {"email": "new@example.com"}
    assert (await http.get("/v1/me", headers=bearer(mine))).json()["email"] == "new@example.com"
    assert [(letter.to, letter.subject) for letter in await mailbox.collect()] == [
        ("alice@example.com", "Your e-mail was changed")
    ]
    problem(await http.post("/v1/auth/reset", json={"token": old_link, "password": OTHER}), 422, "link_invalid")
    assert (await log_in(http, email="new@example.com")).status_code == 200
    problem(await log_in(http), 401, "bad_credentials")


async def test_asking_for_an_email_does_not_tell_who_has_it(http, mailbox):
    await sign_up(http, email="bob@example.com")
    mine = (await sign_up(http))["access_token"]
    await mailbox.collect()
    answers = [
        await http.post("/v1/me/email", json={"current_password": PASSWORD, "email": email}, headers=bearer(mine))
        for email in ("bob@example.com", "free@example.com")
    ]
    assert len({(answer.status_code, answer.text) for answer in answers}) == 1
    letters = {letter.to: letter.subject for letter in await mailbox.collect()}
    assert letters["bob@example.com"] == "You have an account already"


async def test_a_reset_of_an_unconfirmed_email_ends_what_a_stranger_made(http, db, mailbox):
    stranger = (await sign_up(http))["access_token"]
    key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=bearer(stranger))).json()["key"]
    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    token = await mailbox.link("alice@example.com")
    assert (await http.post("/v1/auth/reset", json={"token": token, "password": OTHER})).status_code == 204
    problem(await http.get("/v1/me", headers=bearer(key)), 401, "not_logged_in")
    assert await column(db, "select email_verified_at from users") is not None


async def test_where_emails_must_be_verified_a_sign_up_tells_nobody_who_has_an_account(db, world, mailbox):
    async with client_of(accounts_app(db, world, require_verified_email=True)) as http:
        first = await http.post("/v1/auth/signup", json=ALICE)
        problem(await log_in(http), 403, "email_unverified")
        problem(await log_in(http, password=OTHER), 401, "bad_credentials")
        token = await mailbox.link("alice@example.com")
        again = await http.post("/v1/auth/signup", json={**ALICE, "password": OTHER})
        assert (first.status_code, first.text) == (again.status_code, again.text)
        assert first.status_code == 202
        assert [letter.subject for letter in await mailbox.collect()] == ["You have an account already"]
        assert (await http.post("/v1/auth/verify", json={"token": token})).status_code == 200
        assert (await log_in(http)).status_code == 200
        problem(await log_in(http, password=OTHER), 401, "bad_credentials")


async def test_another_verification_link_is_mailed_only_while_it_is_needed(http, mailbox):
    await sign_up(http)
    await mailbox.collect()
    ask = {"email": ALICE["email"]}
    assert (await http.post("/v1/auth/verify/request", json=ask)).status_code == 202
    token = await mailbox.link("alice@example.com")
    await http.post("/v1/auth/verify", json={"token": token})
    answers = [await http.post("/v1/auth/verify/request", json=each) for each in (ask, {"email": "nobody@example.com"})]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert await mailbox.collect() == []


async def test_the_pages_do_nothing_until_their_button_is_pressed(http, db, mailbox):
    await sign_up(http)
    [letter] = await mailbox.collect()
    page = await http.get(letter.link)
    assert page.status_code == 200
    assert letter.token in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert await column(db, "select email_verified_at from users") is None
    pressed = await http.post("/verify", data={"token": letter.token})
    assert pressed.status_code == 200, pressed.text
    assert await column(db, "select email_verified_at from users") is not None
    assert (await http.post("/verify", data={"token": letter.token})).status_code == 422

    await http.post("/v1/auth/forgot", json={"email": ALICE["email"]})
    token = await mailbox.link("alice@example.com")
    assert (await http.get(f"/reset?token={token}")).status_code == 200
    assert (await http.post("/reset", data={"token": token, "password": "short"})).status_code == 422
    assert (await http.post("/reset", data={"token": token, "password": OTHER})).status_code == 200
    assert (await log_in(http, password=OTHER)).status_code == 200
    assert "<script>" not in (await http.get("/reset", params={"token": '"><script>'})).text

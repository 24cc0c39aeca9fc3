"""Third-party credentials over HTTP and in the database, on a real PostgreSQL."""

import json

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from structlog.testing import capture_logs

from ff_cloud.credentials import repository
from ff_cloud.credentials.endpoints import router
from ff_cloud.credentials.errors import ModelKeyMissing
from ff_cloud.credentials.keyring import Keyring
from ff_cloud.credentials.service import MODEL_KINDS, Credentials
from ff_cloud.errors import SealBroken
from ff_cloud.kit.origin import Origin
from ff_cloud.testing.accounts import accounts_app
from ff_core.contract.credentials import CredentialKind
from ff_core.ids import UserId
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ROOT = b"r" * 32
KEY = CredentialKind.ANTHROPIC_API_KEY
OAUTH = CredentialKind.ANTHROPIC_OAUTH_TOKEN
VALUE = "sk-ant-api03-0123456789-abcdefghij-WXYZ"
HERE = Origin("192.0.2.7", "192.0.2.7", "test")


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def service(db, world):
    return Credentials(db=db, keyring=Keyring(ROOT), world=world, server_has_model_key=False)


@pytest.fixture
async def http(db, world, service):
    app = accounts_app(db, world, routers=(router,))
    app.state.credentials = service
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as client:
        yield client


class Person:
    def __init__(self, http, tokens):
        self.http, self.token = http, tokens["access_token"]

    async def ask(self, method, path, token=None, **more):
        return await self.http.request(method, f"/v1{path}", headers={"Authorization": f"Bearer {token or self.token}"}, **more)

    async def set(self, kind, value, **more):
        return await self.ask("PUT", f"/me/credentials/{kind}", json={"value": value}, **more)

    async def listed(self):
        return (await self.ask("GET", "/me/credentials")).json()["items"]

    async def id(self):
        return UserId((await self.ask("GET", "/me")).json()["id"])


@pytest.fixture
def sign_up(http):
    async def sign(name):
        answer = await http.post("/v1/auth/signup", json={"email": f"{name}@example.com", "password": PASSWORD})
        return Person(http, answer.json())

    return sign


async def test_a_credential_is_set_replaced_and_removed(sign_up, world):
    ann = await sign_up("ann")
    answer = await ann.set(KEY, VALUE)
    assert answer.status_code == 200
    now = world.now().isoformat().replace("+00:00", "Z")
    assert answer.json() == {"kind": KEY, "hint": "WXYZ", "set_at": now, "last_used_at": None}
    world.advance(60)
    await ann.set(KEY, "sk-ant-another-one-that-ends-in-4321")
    await ann.set(CredentialKind.GITHUB_TOKEN, "ghp_short")
    assert [(one["kind"], one["hint"]) for one in await ann.listed()] == [(KEY, "4321"), (CredentialKind.GITHUB_TOKEN, "")]
    assert (await ann.ask("DELETE", f"/me/credentials/{KEY}")).status_code == 204
    gone = await ann.ask("DELETE", f"/me/credentials/{KEY}")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_no_answer_and_no_log_repeats_a_value(sign_up):
    ann = await sign_up("ann")
    with capture_logs() as logs:
        answers = [
            await ann.set(KEY, VALUE),
            await ann.set(KEY, VALUE + "\n"),
            await ann.ask("PUT", f"/me/credentials/{KEY}", json={"value": VALUE, "extra": VALUE}),
            await ann.ask("PUT", f"/me/credentials/{KEY}", json={"value": [VALUE]}),
            await ann.set(VALUE, VALUE),
            await ann.ask("GET", "/me/credentials"),
            await ann.ask("GET", f"/me/credentials/{KEY}"),
        ]
    assert [answer.status_code for answer in answers] == [200, 422, 422, 422, 422, 200, 405]
    assert not any(VALUE in answer.text or VALUE[:-4] in answer.text for answer in answers)
    del logs[[entry.get("path", "").endswith(VALUE) for entry in logs].index(True)]  # the one who puts it into the URL
    assert VALUE[:-4] not in json.dumps(logs, default=str)


@pytest.mark.parametrize(
    "value",
    ["", "short", "a" * 4097, "with space in it", "line\nbreak-in-it", "nul\0-in-the-value", "ümlaute-in-it", "\tsk-ant-x"],
)
async def test_what_can_not_be_a_credential_is_refused(sign_up, value):
    answer = await (await sign_up("ann")).set(KEY, value)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_an_api_key_lists_with_its_scope_and_changes_nothing(sign_up):
    ann = await sign_up("ann")
    await ann.set(KEY, VALUE)

    async def key(*scopes):
        return (await ann.ask("POST", "/api-keys", json={"name": "x", "scopes": scopes})).json()["key"]

    reader, other = await key("account:read"), await key("workspaces:read")
    assert (await ann.ask("GET", "/me/credentials", token=reader)).status_code == 200
    assert (await ann.ask("GET", "/me/credentials", token=other)).json()["code"] == "scope_missing"
    assert (await ann.set(KEY, VALUE, token=reader)).json()["code"] == "login_required"
    assert (await ann.ask("DELETE", f"/me/credentials/{KEY}", token=reader)).json()["code"] == "login_required"
    assert len(await ann.listed()) == 1


async def test_strangers_see_nothing_of_each_other(sign_up, db, service):
    ann, bob = await sign_up("ann"), await sign_up("bob")
    await ann.set(KEY, VALUE)
    assert await bob.listed() == []
    assert (await bob.ask("DELETE", f"/me/credentials/{KEY}")).status_code == 404
    async with db.transaction(await bob.id()) as tx:
        assert await service.open_first(tx, MODEL_KINDS) is None
        with pytest.raises(ModelKeyMissing):
            await service.require_model_key(tx)
    async with db.transaction(await ann.id()) as tx:
        await service.require_model_key(tx)
        assert (await service.open_first(tx, MODEL_KINDS)).value.get_secret_value() == VALUE


async def test_the_audit_log_has_both_and_no_value(sign_up, db):
    ann = await sign_up("ann")
    await ann.set(KEY, VALUE)
    await ann.ask("DELETE", f"/me/credentials/{KEY}")
    async with db.system_transaction() as tx:
        rows = (await tx.execute(text("select action, detail from audit_log where action like 'credential.%' order by at"))).all()
    assert [(row.action, row.detail["kind"]) for row in rows] == [("credential.set", KEY), ("credential.removed", KEY)]
    assert VALUE[-4:] not in str(rows)


async def test_the_database_holds_nothing_of_a_value_but_its_end(sign_up, db):
    ann = await sign_up("ann")
    await ann.set(KEY, VALUE)
    async with db.system_transaction() as tx:
        rows = (await tx.execute(text("select c::text from credentials c"))).scalars().all()
    assert len(rows) == 1
    assert VALUE[:-4] not in rows[0]
    assert VALUE[5:15] not in rows[0]


async def test_a_row_moved_to_another_user_or_kind_does_not_open(sign_up, db, service):
    ann, bob = await sign_up("ann"), await sign_up("bob")
    await ann.set(KEY, VALUE)
    async with db.system_transaction() as tx:
        await tx.execute(text("update credentials set user_id = :bob"), {"bob": await bob.id()})
    async with db.transaction(await bob.id()) as tx:
        with pytest.raises(SealBroken):
            await service.open_first(tx, MODEL_KINDS)
    async with db.system_transaction() as tx:
        await tx.execute(text("update credentials set user_id = :ann, kind = :kind"), {"ann": await ann.id(), "kind": OAUTH})
    async with db.transaction(await ann.id()) as tx:
        with pytest.raises(SealBroken):
            await service.open_first(tx, MODEL_KINDS)


async def test_use_is_noted_once_a_minute(sign_up, db, service, world):
    ann = await sign_up("ann")
    await ann.set(KEY, VALUE)

    async def use():
        async with db.transaction(await ann.id()) as tx:
            await service.open_first(tx, MODEL_KINDS)
        return (await ann.listed())[0]["last_used_at"]

    world.advance(1)
    first = await use()
    assert first is not None
    world.advance(30)
    assert await use() == first
    world.advance(31)
    assert await use() > first


async def test_rotation_moves_every_data_key_and_no_value(sign_up, db, service, world):
    people = [await sign_up(name) for name in ("ann", "bob", "cleo")]
    for person in people:
        await person.set(KEY, VALUE)
    columns = text("select sealed, data_key_sealed, key_id from credentials order by user_id")
    async with db.system_transaction() as tx:
        before = (await tx.execute(columns)).all()
    assert {row.key_id for row in before} == {"derived:1"}
    assert await service.rotate() == 3
    async with db.system_transaction() as tx:
        after = (await tx.execute(columns)).all()
    assert {row.key_id for row in after} == {"derived:2"}
    assert [row.sealed for row in after] == [row.sealed for row in before]
    assert not {row.data_key_sealed for row in after} & {row.data_key_sealed for row in before}
    await people[0].set(OAUTH, VALUE)
    assert await service.rotate() == 4
    # On to a key file, and on to its next key; the server's root secret is then of no use to whoever has the database.
    moved = Credentials(db=db, keyring=Keyring(ROOT, {1: b"k" * 32}), world=world, server_has_model_key=False)
    assert (await moved.rotate(), await moved.rotate()) == (4, 0)
    async with db.transaction(await people[2].id()) as tx:
        assert (await moved.open_first(tx, MODEL_KINDS)).value.get_secret_value() == VALUE
    async with db.transaction(await people[2].id()) as tx:
        with pytest.raises(SealBroken, match="file:1"):
            await service.open_first(tx, MODEL_KINDS)


async def test_reading_goes_on_while_keys_are_rotated(sign_up, db, service, world):
    ann = await sign_up("ann")
    user_id = await ann.id()
    await ann.set(KEY, VALUE)
    async with db.transaction(user_id) as tx:
        found = await repository.find(tx, MODEL_KINDS)
    await service.rotate()
    # A server that read the row before the rotation opens it still.
    assert service._unwrap(found[KEY])
    async with db.transaction(user_id) as tx:
        opened = await service.open_first(tx, MODEL_KINDS)
        await service.put(tx, KEY, SecretStr(VALUE + "2"), "derived:1", HERE)  # and one that writes a moment later, too
    assert opened.value.get_secret_value() == VALUE
    async with db.transaction(user_id) as tx:
        assert (await service.open_first(tx, MODEL_KINDS)).value.get_secret_value() == VALUE + "2"
    assert await service.rotate() == 1

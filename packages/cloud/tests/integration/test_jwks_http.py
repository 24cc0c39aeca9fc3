"""Signing keys: rows that replicas share, rotation without logging anybody out, JWKS. Statement 8 of the security checklist."""

import asyncio
import json

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import select, text

from ff_cloud.auth import tables, tokens
from ff_cloud.auth.signing import REMEMBERED_S, ROTATE_AFTER, VERIFIES_ON, TokenKeys
from ff_cloud.auth.tokens import LIFE_S, AccessClaims
from ff_cloud.auth.upkeep import AuthUpkeep
from ff_cloud.errors import NotLoggedIn, SealBroken
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import Secrets
from ff_cloud.testing.accounts import accounts_app
from ff_cloud.testing.server import own_environment, program
from ff_core.testing.world import FakeWorld
from ff_core.world import SystemWorld

ALICE = {"email": "alice@example.com", "password": "tangerine lamp over the river"}
SEALER = Sealer(b"k" * 32)


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def claims(world):
    return AccessClaims(world.new_id(), world.new_id(), world.new_id())


async def rotate(db, keys, world):
    async with db.system_transaction() as tx:
        return await keys.rotate(tx, world.now())


async def issue(db, keys, claims, world):
    async with db.system_transaction() as tx:
        return await keys.issue(tx, claims, world.now())


async def kids(db):
    """The ids of all keys, the one that signs first."""
    async with db.system_transaction() as tx:
        query = select(tables.signing_keys.c.kid).order_by(tables.signing_keys.c.retires_at.desc().nulls_first())
        return list((await tx.execute(query)).scalars())


def client_of(app):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud")


async def test_jwks_shows_public_keys_only_and_they_verify_our_tokens(db, world):
    async with client_of(accounts_app(db, world)) as http:
        answer = await http.get("/.well-known/jwks.json")
        token = (await http.post("/v1/auth/signup", json=ALICE)).json()["access_token"]
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    (key,) = answer.json()["keys"]
    assert set(key) == {"kid", "kty", "crv", "x", "alg", "use"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "Ed25519", "sig")
    verified = jwt.decode(token, KeySet.import_key_set(answer.json()), algorithms=["Ed25519"])
    assert verified.header == {"alg": "Ed25519", "typ": "at+jwt", "kid": key["kid"]}
    assert set(verified.claims) == {"iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"}
    assert "@" not in json.dumps(verified.claims), "a user is known by his id, never by his e-mail"


async def test_rotation_logs_nobody_out_and_the_old_key_goes_after_its_last_token(db, world, claims):
    keys = TokenKeys(db, SEALER)
    before = await issue(db, keys, claims, world)
    old = (await kids(db))[0]
    new = await rotate(db, keys, world)
    assert (await keys.public_keys(world.now())).keys[0].kid == new != old
    after = await issue(db, keys, claims, world)
    assert await keys.verify(before, world.now()) == await keys.verify(after, world.now()) == claims

    world.advance(LIFE_S - 1)
    assert await keys.verify(before, world.now()) == claims, "good until its end"
    world.advance(VERIFIES_ON.total_seconds() - LIFE_S)
    async with db.system_transaction() as tx:
        assert not await keys.rotate_if_due(tx, world.now())
    assert await kids(db) == [new, old], "not before its time"
    world.advance(1)
    assert [key.kid for key in (await keys.public_keys(world.now())).keys] == [new], "and not a second longer"
    async with db.system_transaction() as tx:
        await keys.rotate_if_due(tx, world.now())
    assert await kids(db) == [new]


async def test_a_token_of_a_deleted_key_is_refused_even_if_it_has_not_ended(db, world, claims):
    keys = TokenKeys(db, SEALER)
    await rotate(db, keys, world)
    made_later = FakeWorld(world.now() + VERIFIES_ON)
    token = await issue(db, keys, claims, made_later)
    assert await keys.verify(token, made_later.now()) == claims
    await rotate(db, keys, world)
    made_later.advance(REMEMBERED_S)
    with pytest.raises(NotLoggedIn):
        await keys.verify(token, made_later.now())


async def test_replicas_agree_on_the_first_key_and_on_rotations(db, world, claims):
    replicas = [TokenKeys(db, SEALER) for _ in range(8)]
    made = await asyncio.gather(*(issue(db, replica, claims, world) for replica in replicas))
    assert len(await kids(db)) == 1
    for replica in replicas:
        for token in made:
            assert await replica.verify(token, world.now()) == claims

    one, other = replicas[:2]
    await rotate(db, one, world)
    token = await issue(db, one, claims, world)
    assert await other.verify(token, world.now()) == claims, "an unknown key is asked for at once"
    assert len(await kids(db)) == 2

    world.advance(ROTATE_AFTER.total_seconds())

    async def due(replica):
        async with db.system_transaction() as tx:
            return await replica.rotate_if_due(tx, world.now())

    assert sorted(await asyncio.gather(*map(due, replicas))) == [False] * 7 + [True]
    assert len(await kids(db)) == 2, "the one of before, which verifies on, and the new one"
    assert [await due(replica) for replica in replicas] == [False] * 8


async def test_keys_rotate_by_themselves_every_90_days(db, world):
    assert ROTATE_AFTER.days == 90
    keys = TokenKeys(db, SEALER)
    upkeep = AuthUpkeep(db=db, keys=keys, world=world)
    await upkeep.once()
    (first,) = await kids(db)
    world.advance(ROTATE_AFTER.total_seconds() - 1)
    await upkeep.once()
    assert await kids(db) == [first]
    world.advance(1)
    await upkeep.once()
    assert len(await kids(db)) == 2
    world.advance(VERIFIES_ON.total_seconds())
    await upkeep.once()
    (second,) = await kids(db)
    assert second != first
    async with db.system_transaction() as tx:
        noted = (await tx.execute(text("select detail from audit_log where action = 'signing_key.rotated'"))).scalars().all()
    assert noted == [{"kid": second}]


async def test_private_halves_are_sealed_and_bound_to_their_row(db, world, claims):
    keys = TokenKeys(db, SEALER)
    await issue(db, keys, claims, world)
    first = (await kids(db))[0]
    with pytest.raises(SealBroken):
        await issue(db, TokenKeys(db, Sealer(b"x" * 32)), claims, world)
    await rotate(db, keys, world)
    async with db.system_transaction() as tx:
        await tx.execute(
            text("update signing_keys set private = (select private from signing_keys where kid = :kid) where kid <> :kid"),
            {"kid": first},
        )
    with pytest.raises(SealBroken):
        await issue(db, TokenKeys(db, SEALER), claims, world)


async def test_a_server_with_another_secret_recovers_by_rotating(db, world, claims):
    await issue(db, TokenKeys(db, SEALER), claims, world)
    other = TokenKeys(db, Sealer(b"x" * 32))
    await rotate(db, other, world)
    assert await other.verify(await issue(db, other, claims, world), world.now()) == claims


async def test_a_token_of_an_unknown_key_is_refused_like_every_other(db, world, claims):
    keys, stranger = TokenKeys(db, SEALER), TokenKeys(db, Sealer(b"x" * 32))
    token = await issue(db, stranger, claims, world)
    async with db.system_transaction() as tx:
        await tx.execute(text("delete from signing_keys"))
    for _ in range(2):
        with pytest.raises(NotLoggedIn) as raised:
            await keys.verify(token, world.now())
        assert (raised.value.code, raised.value.detail) == ("not_logged_in", NotLoggedIn().detail)


async def test_the_command_rotates_beside_a_running_server(postgres, db, world, tmp_path, claims):
    secret = "a secret of 32 characters or more"
    running = TokenKeys(db, Sealer(Secrets(secret.encode()).sealing_key))
    before = await issue(db, running, claims, world)
    url = db.url.render_as_string(hide_password=False)
    environment = own_environment({"FF_DATABASE_URL": url, "FF_SECRET_KEY": secret, "FF_DATA_DIR": str(tmp_path)})
    command = await asyncio.create_subprocess_exec(
        program("ff-cloud"), "keys", "rotate", "signing", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(command.communicate(), 60)
    assert command.returncode == 0, said.decode()
    new, _ = await kids(db)
    assert new in said.decode()
    now = SystemWorld()
    after = await issue(db, running, claims, now)
    assert await running.verify(after, now.now()) == claims, "the running server signs with the new key at once"
    assert json.loads(tokens.from_base64url(after.partition(".")[0]))["kid"] == new
    assert await running.verify(before, world.now()) == claims

"""Hashing and policy of passwords."""

import asyncio
import contextlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_cloud.auth.errors import PasswordRefused, TooManyLogins
from ff_cloud.auth.passwords import Argon2id, Passwords, normalise
from ff_cloud.auth.policy import require_good
from ff_cloud.testing.accounts import CountingHasher
from ff_core.errors import InvalidInput

GOOD = "tangerine lamp over the river"


@pytest.fixture
def hasher():
    return CountingHasher()


@pytest.fixture
def passwords(hasher):
    passwords = Passwords(hasher)
    yield passwords
    passwords.close()


async def test_right_is_right_and_wrong_is_wrong(passwords):
    stored = await passwords.hash(GOOD)
    assert (await passwords.verify(stored, GOOD)).right
    assert not (await passwords.verify(stored, GOOD + "x")).right
    assert not (await passwords.verify("not a verifier", GOOD)).right


async def test_an_unknown_account_costs_the_same_work(passwords, hasher):
    dummies = hasher.hashed
    verdict = await passwords.verify(None, GOOD)
    assert not verdict.right
    assert verdict.renewed is None
    assert len(hasher.verified) == 1
    assert hasher.hashed == dummies
    await passwords.verify(None, GOOD)
    assert hasher.verified[0] == hasher.verified[1], "the dummy is made once"


async def test_new_parameters_renew_the_verifier_of_a_right_password_only(passwords):
    old = CountingHasher(time_cost=2).hash(GOOD)
    assert (await passwords.verify(old, "wrong")).renewed is None
    verdict = await passwords.verify(old, GOOD)
    assert verdict.right
    assert (await passwords.verify(verdict.renewed, GOOD)).renewed is None


class StuckHasher(CountingHasher):
    """Hashes only when allowed."""

    def __init__(self):
        super().__init__()
        self.allowed = threading.Event()
        self.allowed.set()

    def verify(self, stored, password):
        assert self.allowed.wait(30)
        return super().verify(stored, password)


async def test_those_who_wait_have_a_bound_and_giving_up_does_not_free_a_thread():
    hasher = StuckHasher()
    passwords = Passwords(hasher, threads=1, waiting_max=1)
    try:
        hasher.allowed.clear()
        running = asyncio.create_task(passwords.verify(None, GOOD))
        waiting = asyncio.create_task(passwords.verify(None, GOOD))
        await asyncio.sleep(0)
        with pytest.raises(TooManyLogins) as raised:
            await passwords.verify(None, GOOD)
        assert raised.value.headers() == {"Retry-After": "1"}
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(TooManyLogins):
            await passwords.verify(None, GOOD)
        hasher.allowed.set()
        assert not (await waiting).right
        assert not (await passwords.verify(None, GOOD)).right
    finally:
        hasher.allowed.set()
        passwords.close()


def test_the_production_parameters_are_those_of_owasp():
    assert Argon2id().hash(GOOD).startswith("$argon2id$v=19$m=47104,t=1,p=1$")


def test_one_password_typed_in_two_ways_is_one():
    assert normalise("cafe\u0301 \ufb01ne") == normalise("caf\u00e9 fine")
    with pytest.raises(InvalidInput):
        normalise("half \ud83d")


@pytest.mark.parametrize(
    "password",
    [
        GOOD,
        "pässwörter sind doof genug",
        "k8#Lq2!vZp0@wT5x",
        "the password to my dog house is green",
        "наш любимый кот спит днём",
        "我们的猫每天下午都在窗台上睡觉很久",
        "🦊🐙🌵🚲🎻 fifteen or so 🧊",
        "aliceblue velvet mountain",
    ],
)
def test_good_passwords_pass(password):
    require_good(normalise(password), ["alice@example.com", "Alice"])


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "fourteen chars",
        "passwordpassword",
        "Password 1234567",
        "P@ssw0rd-P@ssw0rd",
        "123456789012345",
        "qwertyuiopasdfgh",
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        "xyzxyzxyzxyzxyzxyz",
        "abcdefghijklmnopq",
        "zyxwvutsrqponmlk",
        "correct horse battery staple",
        "alice@example.com",
        "alice.example.com1",
        "alicealicealice12",
        "Factory-Factory-2026",
        "iloveyou princess",
        "               ",
        "adminadminadmin!",
        "welcome.summer.1",
    ],
)
def test_what_everybody_tries_first_is_refused(password):
    with pytest.raises(PasswordRefused) as raised:
        require_good(normalise(password), ["alice@example.com", "Alice"])
    assert raised.value.extra["errors"][0]["field"] == "password"
    assert password.strip() == "" or password not in raised.value.detail


@settings(deadline=None)
@given(st.text(max_size=1024), st.text(max_size=254))
def test_the_policy_always_comes_to_a_decision(password, known):
    with contextlib.suppress(PasswordRefused):
        require_good(password, [known])

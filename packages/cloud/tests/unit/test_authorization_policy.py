"""PKCE, codes that people type, and addresses to go to."""

from collections import Counter

import pytest

from ff_cloud.authorization import policy


def test_s256_of_the_rfc():
    verifier, challenge = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert policy.challenge_of(verifier) == challenge
    assert policy.verifies(challenge, verifier)
    assert not policy.verifies(challenge, verifier[:-1] + "l")
    assert not policy.verifies(challenge, challenge), "plain"
    assert not policy.verifies(policy.challenge_of("x" * 42), "x" * 42), "too short"
    assert not policy.verifies(policy.challenge_of("ü" * 50), "ü" * 50)


def test_user_codes_use_the_whole_alphabet_and_differ():
    codes = [policy.new_user_code() for _ in range(500)]
    assert len(set(codes)) == 500
    assert set(Counter("".join(codes))) == set(policy.USER_CODE_ALPHABET)
    assert len(policy.USER_CODE_ALPHABET) == 20


@pytest.mark.parametrize("typed", ["BCDFGHJK", "bcdf-ghjk", " BCDF GHJK ", "BCDF\u2013GHJK", "b.c.d.f g-h-j-k"])
def test_a_code_is_understood_however_it_is_typed(typed):
    assert policy.typed_code(typed) == "BCDFGHJK"


@pytest.mark.parametrize("typed", ["", "BCDFGHJ", "BCDFGHJKL", "ABCDEFGH", "BCDFGHJ0", "B" * 1000, "\u212aCDFGHJB"])
def test_what_is_no_code_is_none(typed):
    assert policy.typed_code(typed) is None


@pytest.mark.parametrize("following", ["/device", "/account", "/authorize?a=b&c=%2F%2Fevil"])
def test_own_pages_are_gone_to(following):
    assert policy.safe_next(following) == following


@pytest.mark.parametrize(
    "following",
    ["", "device", "//evil", "/\\evil", "https://evil", "/device#x", "/device\r\nX: y", "/dévice", "/v1/me", "/[" * 9],
)
def test_anything_else_is_the_account(following):
    assert policy.safe_next(following) == "/account"


def test_the_name_a_machine_gave_itself_is_one_line_and_short():
    wish = policy.wish_of({"client_id": "ff", "device": "a\nb\x1b[31m" + "x" * 500})
    assert wish.device.startswith("ab[31mx")
    assert len(wish.device) == 100
    assert policy.wish_of({"client_id": "ff"}).device == "an unnamed machine"

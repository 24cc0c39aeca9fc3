"""The shape of API keys."""

import hashlib
import re

import pytest

from ff_cloud.auth.api_keys import generate, parse


def test_a_new_key_is_recognised_and_only_its_hash_is_kept():
    key = generate()
    assert re.fullmatch(r"ffk_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key)
    presented = parse(key)
    assert presented.prefix == key[:12]
    assert presented.sha256 == hashlib.sha256(key.encode()).digest()
    assert key[13:] not in repr(presented)


def test_keys_differ():
    keys = [generate() for _ in range(200)]
    assert len({key[:12] for key in keys}) == len({key[13:] for key in keys}) == 200


def test_every_single_typing_error_is_noticed():
    key = generate()
    for at in range(len(key)):
        other = "A" if key[at] != "A" else "B"
        assert parse(key[:at] + other + key[at + 1 :]) is None


@pytest.mark.parametrize(
    "change", [lambda k: k[:-1], lambda k: k + "x", lambda k: k + "\n", str.lower, lambda k: "", lambda k: " " + k]
)
def test_what_is_not_a_key_is_not_taken_for_one(change):
    assert parse(change(generate())) is None

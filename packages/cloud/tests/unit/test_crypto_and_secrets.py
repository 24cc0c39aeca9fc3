"""Sealing, derived keys, and the key file."""

import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ff_cloud.errors import SealBroken, SecretKeyUnusable
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import KEY_FILE, Secrets, master_secret

SEALER = Sealer(bytes(range(32)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_what_is_sealed_opens(plaintext, context):
    sealed = SEALER.seal(plaintext, context)
    assert sealed.isascii()
    assert sealed.isprintable()
    assert SEALER.open_sealed(sealed, context) == plaintext


@given(TEXTS, TEXTS, TEXTS)
def test_only_the_same_context_opens(plaintext, context, other):
    sealed = SEALER.seal(plaintext, context)
    if context != other:
        with pytest.raises(SealBroken):
            SEALER.open_sealed(sealed, other)


@given(TEXTS, st.data())
def test_any_damage_is_noticed(plaintext, data):
    raw = bytearray(urlsafe_b64decode(SEALER.seal(plaintext, "here")))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        SEALER.open_sealed(urlsafe_b64encode(raw).decode(), "here")


@given(TEXTS, st.data())
def test_a_cut_text_does_not_open(plaintext, data):
    raw = urlsafe_b64decode(SEALER.seal(plaintext, "here"))
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(SealBroken):
        SEALER.open_sealed(urlsafe_b64encode(cut).decode(), "here")


@pytest.mark.parametrize("garbage", ["", "é", "a", "AQ==", "!" * 40, "A" * 60])
def test_garbage_does_not_open(garbage):
    with pytest.raises(SealBroken):
        SEALER.open_sealed(garbage, "here")


def test_two_seals_of_one_text_differ_and_another_key_opens_none():
    first, second = SEALER.seal("token", "here"), SEALER.seal("token", "here")
    assert first != second
    with pytest.raises(SealBroken):
        Sealer(bytes(32)).open_sealed(first, "here")


def test_each_purpose_has_its_own_key_and_keys_are_stable():
    one, again, other = Secrets(b"a" * 32), Secrets(b"a" * 32), Secrets(b"b" * 32)
    assert vars(one) == vars(again)
    keys = [*vars(one).values(), *vars(other).values()]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_a_configured_secret_is_used_and_no_file_is_made(tmp_path):
    assert master_secret(SecretStr("c" * 40), tmp_path) == b"c" * 40
    assert list(tmp_path.iterdir()) == []


def test_the_key_file_is_made_once_and_only_we_can_read_it(tmp_path):
    place = tmp_path / "data"
    first = master_secret(None, place)
    assert len(first) >= 43
    assert master_secret(None, place) == first
    assert [(entry.name, entry.stat().st_mode & 0o777) for entry in place.iterdir()] == [(KEY_FILE, 0o600)]


def test_servers_that_start_at_once_agree_on_one_key(tmp_path):
    found, start = [], threading.Barrier(8)

    def begin():
        start.wait(10)
        found.append(master_secret(None, tmp_path))

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.parametrize(
    ("content", "mode", "hint"), [(b"x" * 43, 0o644, "chmod 600"), (b"short", 0o600, "shorter"), (b"", 0o600, "shorter")]
)
def test_a_key_file_that_is_open_or_damaged_is_refused(tmp_path, content, mode, hint):
    file = tmp_path / KEY_FILE
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(SecretKeyUnusable, match=hint):
        master_secret(None, tmp_path)


def test_a_place_that_can_not_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SecretKeyUnusable, match="can't be read from or written"):
        master_secret(None, tmp_path / "file" / "data")

"""Key-encryption keys: by name, stable, from the secret or from a file that others can't read."""

from base64 import b64encode

import pytest

from ff_cloud.credentials.errors import KeyringUnusable
from ff_cloud.credentials.keyring import Keyring, read_key_file
from ff_cloud.errors import SealBroken

ROOT = b"r" * 32


def line(version, fill=b"k", count=32):
    return f"{version} {b64encode(fill * count).decode()}\n"


@pytest.fixture
def key_file(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "keys"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_versions_are_different_keys_and_stay_the_same():
    ring = Keyring(ROOT)
    keys = {ring.key(f"derived:{version}") for version in range(1, 5)}
    assert len(keys) == 4
    assert Keyring(ROOT).key("derived:1") in keys
    assert Keyring(b"q" * 32).key("derived:1") not in keys
    assert ring.filed is None


def test_the_newest_key_of_a_file_is_the_one_for_new_secrets(key_file):
    ring = Keyring(ROOT, read_key_file(key_file("# ours\n\n" + line(2, b"b") + line(10, b"j"))))
    assert ring.filed == "file:10"
    assert ring.key("file:2") == b"b" * 32
    assert ring.key("derived:1") == Keyring(ROOT).key("derived:1")


@pytest.mark.parametrize("name", ["file:1", "derived:", "derived:x", "other:1", ""])
def test_a_key_that_is_not_here_is_told_by_name(name):
    with pytest.raises(SealBroken, match="does not have"):
        Keyring(ROOT).key(name)


@pytest.mark.parametrize("text", ["", "# nothing\n", "x\n", line(1, count=31), line("one"), line(1) + line(1), "1 not-base64!\n"])
def test_a_file_that_is_not_right_is_refused_without_repeating_it(key_file, text):
    with pytest.raises(KeyringUnusable) as refused:
        read_key_file(key_file(text))
    assert b64encode(b"k" * 31).decode()[:10] not in refused.value.detail


def test_a_file_that_others_can_read_is_refused(key_file):
    with pytest.raises(KeyringUnusable, match="chmod 600"):
        read_key_file(key_file(line(1), mode=0o640))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(KeyringUnusable, match="can't be read"):
        read_key_file(tmp_path / "none")

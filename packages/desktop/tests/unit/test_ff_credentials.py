"""The credentials file under several processes and crashes."""

import stat
import subprocess
import sys
from uuid import UUID

import pytest
from pydantic import SecretStr

from ff_desktop.credentials import Credentials, CredentialStore
from ff_desktop.errors import CredentialsBusy, CredentialsUnreadable


def credentials(number=0):
    return Credentials(server="https://a.b", email="a@b.c", key_id=UUID(int=number), key=SecretStr(f"key {number} " + "x" * 5000))


SAVE_MANY = """
import sys
from pathlib import Path
from uuid import UUID
from pydantic import SecretStr
from ff_desktop.credentials import Credentials, CredentialStore

store, first = CredentialStore(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 20):
    key = SecretStr(f"key {number} " + "x" * 5000)
    with store.locked():
        store.save(Credentials(server="https://a.b", email="a@b.c", key_id=UUID(int=number), key=key))
"""


def test_writers_and_readers_at_once_see_whole_files(tmp_path):
    path = tmp_path / "deep" / "config" / "credentials.json"
    writers = [subprocess.Popen([sys.executable, "-c", SAVE_MANY, str(path), str(start)]) for start in (0, 100)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = CredentialStore(path).load()
        if found is not None:
            assert found.key.get_secret_value().startswith(f"key {found.key_id.int} ")
            seen.add(found.key_id.int)
    for writer in writers:
        assert writer.wait(20) == 0
    assert seen
    assert sorted(p.name for p in path.parent.iterdir()) == ["credentials.json", "credentials.lock"]


def test_the_lock_has_a_time_limit(tmp_path):
    path = tmp_path / "credentials.json"
    with CredentialStore(path).locked(), pytest.raises(CredentialsBusy), CredentialStore(path, lock_wait_s=0.1).locked():
        pass
    with CredentialStore(path, lock_wait_s=0.1).locked():
        pass


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "credentials.json"
    victim.write_text("precious")
    path.symlink_to(victim)
    CredentialStore(path).save(credentials())
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "credentials.json"
    store = CredentialStore(path)
    store.save(credentials(1))
    blocked = CredentialStore(tmp_path / "absent" / "credentials.json")
    with pytest.raises(CredentialsUnreadable):
        blocked.save(credentials(2))
    found = store.load()
    assert found is not None
    assert found.key_id == UUID(int=1)
    assert [p.name for p in tmp_path.iterdir()] == ["credentials.json"]


def test_the_key_does_not_show_in_prints():
    assert "key 0" not in repr(credentials())

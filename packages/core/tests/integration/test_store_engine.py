import asyncio
import sqlite3
import subprocess
import sys

import pytest

from ff_core.store.engine import MIGRATIONS, Store
from ff_core.store.errors import DiskFull, StoreBroken, StoreInUse, StoreTooNew


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state.db")
    with store.transaction() as tx:
        tx.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT)")
    yield store
    store.close()


def test_migrations_count_from_one_without_gap():
    numbers = sorted(int(path.name[:4]) for path in MIGRATIONS.glob("*.sql"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_commit_then_callbacks_in_order(store):
    said = []
    with store.transaction() as tx:
        tx.after_commit(lambda: said.append(len(store.query("SELECT 1 FROM t"))))
        tx.after_commit(lambda: said.append("second"))
        tx.execute("INSERT INTO t VALUES (1, 'a')")
        assert said == []
    assert said == [1, "second"]


def test_an_error_rolls_back_and_calls_nobody(store):
    said = []
    with pytest.raises(ValueError, match="no"), store.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1, 'a')")
        tx.after_commit(lambda: said.append("called"))
        raise ValueError("no")
    assert (store.query("SELECT * FROM t"), said) == ([], [])
    with store.transaction() as tx:  # and the store is usable
        tx.execute("INSERT INTO t VALUES (1, 'a')")


def test_what_is_durable_waits_for_the_disk_and_only_that(store):
    with store.transaction(durable=True) as tx:
        assert tx.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    with pytest.raises(ValueError, match="no"), store.transaction(durable=True):
        raise ValueError("no")
    with store.transaction() as tx:
        assert tx.execute("PRAGMA synchronous").fetchone()[0] == 1  # NORMAL


def test_a_constraint_can_be_caught_inside_and_is_broken_outside(store):
    with store.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(sqlite3.IntegrityError):
            tx.execute("INSERT INTO t VALUES (1, 'b')")
    with pytest.raises(StoreBroken), store.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1, 'b')")


async def test_transactions_do_not_nest_so_an_await_inside_one_is_noticed(store):
    async def other():
        with store.transaction():
            pass

    with store.transaction(), pytest.raises(RuntimeError, match="never await inside"):
        await asyncio.create_task(other())


def test_the_files_are_private(store, tmp_path):
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)
    assert "state.db-wal" in modes


def test_a_second_opener_is_refused_and_the_lock_ends_with_its_owner(store, tmp_path):
    path = tmp_path / "state.db"
    with pytest.raises(StoreInUse, match=r"state\.db"):
        Store.open(path)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from ff_core.store.engine import Store; Store.open(pathlib.Path(sys.argv[1]))",
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "StoreInUse" in done.stderr
    store.close()
    store.close()
    Store.open(path).close()


def test_reopening_keeps_the_data_and_migrates_nothing_twice(store, tmp_path):
    with store.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (1, 'a')")
    store.close()
    again = Store.open(tmp_path / "state.db")
    assert [tuple(row) for row in again.query("SELECT * FROM t")] == [(1, "a")]
    again.close()


def test_a_newer_database_is_refused_with_a_clear_sentence(store, tmp_path):
    with store.transaction() as tx:
        tx.execute("PRAGMA user_version = 999")
    store.close()
    with pytest.raises(StoreTooNew, match="version 999"):
        Store.open(tmp_path / "state.db")


def test_a_file_that_is_no_database_is_broken(tmp_path):
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreBroken):
        Store.open(path)
    path.unlink()
    Store.open(path).close()  # the failure let go of the lock


def test_a_full_database_says_disk_full_and_keeps_what_it_has(store):
    pages = store.query("PRAGMA page_count")[0][0]
    store.query(f"PRAGMA max_page_count = {pages + 4}")
    kept = 0
    with pytest.raises(DiskFull):
        for number in range(1000):
            with store.transaction() as tx:
                tx.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 2000))
            kept += 1
    assert kept > 0
    assert [row["x"] for row in store.query("SELECT x FROM t ORDER BY x")] == list(range(kept))
    assert store.query("PRAGMA integrity_check")[0][0] == "ok"
    store.query(f"PRAGMA max_page_count = {pages + 4000}")
    with store.transaction() as tx:
        tx.execute("INSERT INTO t VALUES (?, 'later')", (kept,))

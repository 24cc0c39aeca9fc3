"""Whatever the moment of a kill -9: what was reported as appended is there, and nothing is torn or missing in between."""

import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.ids import WorkspaceId
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.world import SystemWorld

W = WorkspaceId(UUID(int=1))
WRITER = """
import os, sys
from pathlib import Path
from uuid import UUID
from ff_core.contract.events import Notice
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.world import SystemWorld
store = Store.open(Path(sys.argv[1]))
journal = Journal(store, SystemWorld())
while True:
    with store.transaction() as tx:
        for _ in range(int(sys.argv[2])):
            event = journal.append(tx, UUID(int=1), Notice(name="n", message="x" * int(sys.argv[3])))
    os.write(1, b"%d\\n" % event.seq)
"""


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lives=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 5), st.sampled_from([1, 1_000, 60_000])), min_size=1, max_size=2)
)
def test_a_killed_writer_leaves_a_whole_journal(lives):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        for commits, batch, size in lives:
            with subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), str(batch), str(size)], stdout=subprocess.PIPE
            ) as writer:
                reported = [int(writer.stdout.readline()) for _ in range(commits)][-1]
                writer.kill()
                rest = writer.stdout.read().split(b"\n")[:-1]
            store = Store.open(path)
            journal = Journal(store, SystemWorld())
            last = journal.last_seq(W)
            assert last >= max([reported, *map(int, rest)])
            seen = 0
            while page := journal.read(W, seen, 1_000):
                assert [event.seq for event in page] == list(range(seen + 1, seen + len(page) + 1))
                seen = page[-1].seq
            assert seen == last
            assert last % batch == 0 or len(lives) > 1  # a transaction is there whole or not at all
            assert store.query("PRAGMA integrity_check")[0][0] == "ok"
            store.close()

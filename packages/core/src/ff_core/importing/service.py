"""Importing from Factory Factory: look, decide, show; and write only when asked to."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ff_core.contract.local import ImportReport, ImportRequest
from ff_core.importing import plan as plans
from ff_core.importing.apply import apply, ours
from ff_core.importing.disk import HasTranscript, look
from ff_core.importing.reading import read
from ff_core.store.engine import Store
from ff_core.store.journal import Journal


class Importing:
    """Imports into ``store``.

    ``environment`` is the user's, for his git. ``has_transcript`` says whether the agent has a conversation of that name.
    Copies of databases lie below ``folder`` while they are read (None: where the system has temporary files).
    """

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        environment: Mapping[str, str],
        has_transcript: HasTranscript,
        folder: Path | None = None,
    ) -> None:
        self._store, self._journal = store, journal
        self._environment, self._has_transcript, self._folder = environment, has_transcript, folder

    async def run(self, request: ImportRequest) -> ImportReport:
        """Say what an import does, and do it when ``apply`` says so: in one transaction, all of it or nothing.

        May be repeated: what is here already stays as it is. Reads the file anew each time, so between showing and doing more
        may have come; the report says what was done. Transcripts and worktrees stay where they are. Raises ``ImportUnreadable``.
        """
        found = await asyncio.to_thread(read, Path(request.path), folder=self._folder)
        disk = await look(found, environment=self._environment, has_transcript=self._has_transcript)
        with self._store.transaction() as tx:
            plan = plans.decide(found, disk, ours(self._store, tx, found))
            if request.apply:
                apply(tx, plan, self._journal)
        return ImportReport(source=str(found.source), layout=found.layout, applied=request.apply, lines=plans.lines(plan))

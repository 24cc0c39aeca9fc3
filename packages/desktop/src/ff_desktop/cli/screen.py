"""Standard output and error: colours and live typing on a terminal only, JSON on request, nothing unescaped."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from ff_core.contract.base import dump
from ff_core.contract.problem import code_of
from ff_core.errors import FFError
from ff_desktop.cli.plain import one_line, plain

ERROR_CHARS_MAX = 4000


@dataclass(frozen=True)
class Line:
    """A piece of text for people, made :func:`plain` already, and its style in rich's words."""

    text: str
    style: str = ""


class Screen:
    """Where a command writes. ``json`` silences everything for people on standard output."""

    def __init__(self) -> None:
        self.json = False
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)

    @property
    def live(self) -> bool:
        """Whether a person watches: only then is text typed as it comes."""
        return self._out.is_terminal and not self.json

    @property
    def progresses(self) -> bool:
        """Whether :meth:`progress` shows anything, so that it is worth asking how far it is."""
        return self._err.is_terminal

    @property
    def asks(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin is not None and sys.stdin.isatty()

    def lines(self, lines: Iterable[Line]) -> None:
        """Put out lines for people."""
        if not self.json:
            for line in lines:
                self._out.print(Text(line.text, style=line.style), soft_wrap=True)

    def say(self, text: str) -> None:
        """One plain sentence for people."""
        self.lines([Line(plain(text))])

    def type(self, text: str, style: str = "") -> None:
        """Put out a piece of a line, at once."""
        self._out.print(Text(text, style=style), soft_wrap=True, end="")
        self._out.file.flush()

    def object(self, value: BaseModel | dict[str, object]) -> None:
        """With ``json``: one JSON object on one line, pure ASCII, so that nothing in it can drive a terminal."""
        if self.json:
            sys.stdout.write(json.dumps(dump(value) if isinstance(value, BaseModel) else value) + "\n")
            sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table on a terminal; elsewhere the same cells with tabs between them, for ``cut`` and ``awk``."""
        if self.json:
            return
        if not self._out.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(map(one_line, row)) + "\n")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        self._out.print(table)

    def note(self, text: str) -> None:
        """A remark beside the result, on standard error."""
        self._err.print(Text(plain(text), style="dim"), soft_wrap=True)

    def error(self, error: FFError) -> None:
        """Say what went wrong, on one line of standard error."""
        text = Text("error: ", style="bold red").append(f"{one_line(error.detail, ERROR_CHARS_MAX)} ", style="default not bold")
        text.append(f"({one_line(code_of(error))})", style="dim not bold")
        self._err.print(text, soft_wrap=True)

    @contextmanager
    def progress(self, text: str) -> Iterator["Progress"]:
        """Something takes a while: a line that changes on a terminal, one line elsewhere."""
        if not self._err.is_terminal:
            yield Progress(None)
            return
        with self._err.status(Text(plain(text))) as status:
            yield Progress(status)

    @contextmanager
    def bars(self) -> Iterator["Bars"]:
        """Several things take a while: a bar for each on a terminal, a line for each change elsewhere."""
        if not self._err.is_terminal:
            yield Bars(None, self.note)
            return
        columns = (
            TextColumn("{task.fields[name]}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[says]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        )
        with RichProgress(*columns, console=self._err, transient=True, expand=True) as progress:
            yield Bars(progress, self.note)


class Bars:
    """Tells how far several things are."""

    def __init__(self, progress: RichProgress | None, note: Callable[[str], None]) -> None:
        self._progress, self._note = progress, note
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def show(self, key: str, name: str, says: str, share: float | None) -> None:
        """How far one is; ``share`` is of its present step, None when that can't be told."""
        if self._progress is None:
            words = says.split(" ", 1)[0]  # not every byte
            if words and self._said.get(key) != words:
                self._said[key] = words
                self._note(f"{name}: {says}")
            return
        total, done = (None, 0.0) if share is None else (1.0, share)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task("", total=total, name=plain(name), says=plain(says))
        self._progress.update(self._tasks[key], total=total, completed=done, name=plain(name), says=plain(says))


class Progress:
    """Tells how far it is."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def update(self, text: str) -> None:
        """Replace the line."""
        if self._status is not None:
            self._status.update(Text(one_line(text)))


def _console(*, stderr: bool) -> Console:
    # Rich looks at FORCE_COLOR and friends; we promise colours on a terminal only.
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    return Console(stderr=stderr, force_terminal=terminal, markup=False, highlight=False, emoji=False)

"""The first entry of a bundle: what it is of, and what unpacking it must yield."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ff_core.contract.base import Request
from ff_core.contract.handoff import Contents, Fingerprint
from ff_core.git.exact.state import RepositoryState
from ff_core.git.exact.words import Raw, read
from ff_core.handoff.errors import BundleBroken
from ff_core.handoff.names import fault

STATUS_BYTES_MAX = 256 << 10


class Manifest(Request):
    """See the module. Repositories are numbered as in the headers of entries."""

    format: Literal[1] = 1
    repositories: Annotated[tuple[RepositoryState, ...], Field(min_length=1)]
    statuses: tuple[Raw | None, ...]
    """What git said of each, to find where a difference is; null: too much to tell."""
    fingerprint: Fingerprint
    contents: Contents

    @model_validator(mode="after")
    def _fits(self) -> "Manifest":
        paths = [each.path for each in self.repositories]
        modules = {(each.parent, each.module) for each in self.repositories if each.module is not None}
        if (
            paths != [read(each.path) for each in self.fingerprint.repositories]
            or len(self.statuses) != len(paths)
            or len(set(paths)) != len(paths)
            or any(not self._is_placed(number) for number in range(len(paths)))
            or any((parent, above) in modules for parent, name in modules for above in _above(name))
            or len(modules) != sum(each.module is not None for each in self.repositories)
        ):
            msg = "the parts of the manifest do not fit together"
            raise ValueError(msg)
        return self

    def path_in_parent(self, number: int) -> bytes:
        """Of a submodule."""
        state = self.repositories[number]
        above = self.repositories[state.parent or 0].path
        return state.path[len(above) + 1 :] if above else state.path

    def _is_placed(self, number: int) -> bool:
        state = self.repositories[number]
        if number == 0:
            return state.path == b"" and state.parent is None and state.module is None
        if state.parent is None or not 0 <= state.parent < number:
            return False
        above = self.repositories[state.parent].path
        return state.path.startswith(above + b"/" if above else b"") and fault(self.path_in_parent(number)) is None


def parse(text: bytes) -> Manifest:
    """Raises :class:`BundleBroken`."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as exc:
        raise BundleBroken from exc


def status_to_tell(text: bytes) -> bytes | None:
    """A status as the manifest has it."""
    return text if len(text) <= STATUS_BYTES_MAX else None


def _above(name: bytes | None) -> list[bytes]:
    parts = (name or b"").split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]

"""The first two requests of every VM, read without Pydantic, which takes longer to import than all else that they need.

Whatever is not plainly in order is nobody's business here: None, and :mod:`ff_core.daemon.bodies` has the contract's own
models judge it, with their words for what is wrong. What is read here they would have read alike; ``test_quick.py`` has them
compared on whatever it can think of.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ff_core.contract import plain
from ff_core.contract.places import Location
from ff_core.ids import HandoffId, WorkspaceId

NAME_CHARS_MAX = 100
EPOCH_END = 2**31
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_URL = re.compile(plain.URL_PATTERN)
_GATEWAY_URL = re.compile(plain.GATEWAY_URL_PATTERN)
_GIT_HOST = re.compile(plain.GIT_HOST_PATTERN)
_TOKEN = re.compile(plain.BEARER_TOKEN_PATTERN)
_LOCATION = re.compile("|".join(Location))
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_ENV_NAME = re.compile(plain.ENV_NAME_PATTERN)


class _Unclear(Exception):
    """Somebody else shall look at it."""


# Not dataclasses: each of these takes half a millisecond to make, in which a command could begin.
class _Secret:
    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value


class _Model:
    def __init__(self, base_url: str | None, api_key: _Secret | None) -> None:
        self.base_url, self.api_key = base_url, api_key


class _Git:
    def __init__(self, gateway_url: str, token: _Secret, hosts: tuple[str, ...]) -> None:
        self.gateway_url, self.token, self.hosts = gateway_url, token, hosts


class _Binding:
    def __init__(
        self,
        *,
        workspace_id: WorkspaceId,
        name: str,
        model: _Model,
        git: _Git | None,
        existing: bool,
        location: Location,
        epoch: int,
        handoff_id: HandoffId | None,
    ) -> None:
        self.workspace_id, self.name, self.model, self.git, self.existing = workspace_id, name, model, git, existing
        self.location, self.epoch, self.handoff_id = location, epoch, handoff_id


class _Command:
    def __init__(self, *, argv: list[str], cwd: str | None, env: dict[str, str], stdin: str | None, timeout_s: float) -> None:
        self.argv, self.cwd, self.env, self.stdin, self.timeout_s = argv, cwd, env, stdin, timeout_s


def binding(body: bytes) -> plain.Binding | None:
    """What ``Bind`` would read, or None."""
    try:
        possible = {"git", "existing", "location", "epoch", "handoff_id"}
        given = _members(_parsed(body), {"workspace_id", "name", "model"}, possible)
        existing, epoch, handoff_id = given.get("existing", False), given.get("epoch", 1), given.get("handoff_id")
        _require(isinstance(existing, bool))
        _require(isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch < EPOCH_END)
        return _Binding(
            workspace_id=WorkspaceId(UUID(_text(given["workspace_id"], 36, _UUID))),
            name=_name(given["name"]),
            model=_model(given["model"]),
            git=None if given.get("git") is None else _git(given["git"]),
            existing=existing,
            location=Location(_text(given.get("location", Location.CLOUD), None, _LOCATION)),
            epoch=epoch,
            handoff_id=None if handoff_id is None else HandoffId(UUID(_text(handoff_id, 36, _UUID))),
        )
    except _Unclear:
        return None


def command(body: bytes) -> plain.Command | None:
    """What ``ExecRequest`` would read, or None."""
    try:
        given = _members(_parsed(body), {"argv"}, {"cwd", "env", "stdin", "timeout_s"})
        argv, env, timeout_s = given["argv"], given.get("env", {}), given.get("timeout_s", plain.EXEC_TIMEOUT_S)
        _require(isinstance(argv, list) and 1 <= len(argv) <= plain.ARGUMENTS_MAX)
        _require(isinstance(env, dict) and len(env) <= plain.ENV_MAX)
        _require(isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool))
        _require(0 < timeout_s <= plain.EXEC_TIMEOUT_S_MAX)
        cwd, stdin = given.get("cwd"), given.get("stdin")
        return _Command(
            argv=[_argument(word) for word in argv],
            cwd=None if cwd is None else _argument(cwd, plain.CWD_CHARS_MAX),
            env={_text(name, plain.ENV_NAME_CHARS_MAX, _ENV_NAME): _argument(value) for name, value in env.items()},
            stdin=None if stdin is None else _text(stdin, plain.STDIN_CHARS_MAX),
            timeout_s=float(timeout_s),
        )
    except _Unclear:
        return None


def _model(value: Any) -> _Model:
    given = _members(value, set(), {"base_url", "api_key"})
    url, key = given.get("base_url"), given.get("api_key")
    if url is not None:
        _require(_URL.match(_text(url, plain.URL_CHARS_MAX)) is not None)
    return _Model(url, None if key is None else _Secret(_text(key)))


def _git(value: Any) -> _Git:
    given = _members(value, {"gateway_url", "token", "hosts"}, set())
    hosts = given["hosts"]
    _require(isinstance(hosts, list) and len(hosts) <= plain.GIT_HOSTS_MAX)
    return _Git(
        gateway_url=_text(given["gateway_url"], plain.URL_CHARS_MAX, _GATEWAY_URL),
        token=_Secret(_text(given["token"], None, _TOKEN)),
        hosts=tuple(_text(host, None, _GIT_HOST) for host in hosts),
    )


def _name(value: Any) -> str:
    """As ``contract.base.Label``, of those that are one already."""
    name = _text(value, NAME_CHARS_MAX)
    _require(name.isprintable() and name == name.strip() and name not in {"", ".", ".."} and not {"/", "\\"} & set(name))
    return name


def _argument(value: Any, chars_max: int = plain.ARGUMENT_CHARS_MAX) -> str:
    text = _text(value, chars_max)
    _require("\0" not in text)
    return text


def _text(value: Any, chars_max: int | None = None, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or (chars_max is not None and len(value) > chars_max):
        raise _Unclear
    if pattern is not None and pattern.fullmatch(value) is None:
        raise _Unclear
    return value


def _members(value: Any, needed: set[str], possible: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not needed <= value.keys() or not value.keys() <= needed | possible:
        raise _Unclear
    return value


def _require(clear: bool) -> None:
    if not clear:
        raise _Unclear


def _parsed(body: bytes) -> Any:
    _require(_SURROGATE.search(body) is None)  # half a character is not text
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as exc:
        raise _Unclear from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _require(len(found) == len(pairs))  # which of two members counts?
    return found


def _constant(_name: str) -> Any:
    raise _Unclear  # NaN and infinities are not JSON

"""What is read without Pydantic is what Pydantic would have read; and what a VM's first calls look like is read without it."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from ff_core.contract.base import dump
from ff_core.contract.daemon import Bind, GitAccess, ModelAccess
from ff_core.contract.execution import ExecRequest
from ff_core.daemon import quick

ID = "01890000-0000-7000-8000-000000000001"
BIND: dict[str, Any] = {
    "workspace_id": ID,
    "name": "naïve ☃",
    "model": {"base_url": "http://ff-host:8431/anthropic", "api_key": "sk-1"},
    "git": {"gateway_url": "http://ff-host:8431", "token": "vm-token_1", "hosts": ["https://github.com", "http://[::1]:3000"]},
    "existing": True,
    "location": "DESKTOP",
    "epoch": 3,
    "handoff_id": "01890000-0000-7000-8000-000000000002",
}
EXEC: dict[str, Any] = {"argv": ["sh", "-c", "echo 'ä'"], "cwd": "../home", "env": {"A": "b=c"}, "stdin": "x\n", "timeout_s": 5}

ODD_TEXTS = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "a\\b",
    "a\n",
    "\n",
    "\0",
    "\x1f",
    "\u2028",
    "\ud800",
    "\ufeff",
    "\u00a0a",
    "x" * 101,
    "é",
    "A=B",
    "1A",
    "A\n",
]
URLS = [
    "http://x",
    "https://x/y",
    "HTTP://x",
    "ftp://x",
    "http://",
    "http://x\n",
    "http://x/",
    'http://x"',
    "https://" + "x" * 2048,
]
texts = (
    st.text(max_size=5)
    | st.sampled_from(ODD_TEXTS)
    | st.sampled_from(URLS)
    | st.from_regex(r"[A-Za-z0-9._~+/=-]{1,8}", fullmatch=True)
)
scalars = st.none() | st.booleans() | st.integers(-1, 4000) | st.floats() | st.sampled_from([10**400, 1e-320, -0.0]) | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def mutated(valid: Any) -> st.SearchStrategy[Any]:
    """The valid value, with some of its parts replaced, left out or added to."""
    match valid:
        case dict():
            members = st.fixed_dictionaries({}, optional={name: mutated(value) for name, value in valid.items()})
            whole = st.fixed_dictionaries({name: mutated(value) for name, value in valid.items()})
            more = st.dictionaries(texts, anything, max_size=1)
            return st.one_of(whole, whole, members, st.builds(lambda a, b: {**a, **b}, whole, more), anything)
        case list():
            return st.one_of(st.just(valid), st.lists(st.one_of(*map(mutated, valid), anything), max_size=4), anything)
        case _:
            return st.one_of(st.just(valid), st.just(valid), anything)


def plain(value: Any) -> Any:
    """A model, or what stands for it, as data; floats with their sign."""
    match value:
        case SecretStr() | quick._Secret():
            return ("secret", value.get_secret_value())
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case quick._Binding() | quick._Model() | quick._Git() | quick._Command():
            return {name: plain(item) for name, item in vars(value).items()}
        case list() | tuple():
            return (type(value).__name__, [plain(item) for item in value])
        case _:
            return (type(value).__name__, value)


def agree(model: type[BaseModel], read: Any, body: bytes) -> bool:
    """Whether it was read at all; and if so, as the model reads it."""
    found = read(body)
    if found is None:
        return False
    assert plain(found) == plain(model.model_validate_json(body))
    return True


@given(mutated(BIND), st.booleans())
def test_a_binding_is_read_as_the_contract_reads_it_or_not_at_all(value, ascii_only):
    agree(Bind, quick.binding, json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(mutated(EXEC), st.booleans())
def test_a_command_is_read_as_the_contract_reads_it_or_not_at_all(value, ascii_only):
    agree(ExecRequest, quick.command, json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
@example(b"[" * 100_000)
@example(json.dumps(EXEC).encode("utf-16"))
@example(b"\xef\xbb\xbf" + json.dumps(EXEC).encode())
@example(b'{"argv": ["a"], "argv": ["b"]}')
@example(b'{"argv": ["a"], "timeout_s": NaN}')
@example(b'{"argv": ["a"], "timeout_s": 1e999}')
@example(b'{"argv": ["a"], "timeout_s": ' + b"9" * 5000 + b"}")
@example(b'{"argv": ["\\ud800"]}')
@example(b'{"argv": ["\\ud83d\\ude00"]}')
@example(b'{"argv": ["a"],}')
@example(b"{'argv': ['a']}")
@example(b'{"argv": ["\t"]}')
def test_bytes_of_any_kind_are_read_as_the_contract_reads_them_or_not_at_all(body):
    agree(ExecRequest, quick.command, body)
    agree(Bind, quick.binding, body)


@pytest.mark.parametrize(
    "given_",
    [
        BIND,
        {**BIND, "name": "My workspace"},
        {**BIND, "git": None},
        {**BIND, "model": {}},
        {"workspace_id": ID, "name": "x", "model": {"base_url": None, "api_key": None}},
    ],
)
def test_what_the_control_plane_sends_is_read_here(given_):
    assert agree(Bind, quick.binding, json.dumps(given_, ensure_ascii=False).encode())


def test_so_is_what_its_own_models_become():
    bind = Bind(
        workspace_id=ID,
        name="x",
        model=ModelAccess(base_url="http://x", api_key=SecretStr("k")),
        git=GitAccess(gateway_url="http://x", token=SecretStr("t"), hosts=("https://github.com",)),
    )
    body = {**dump(bind), "model": {"base_url": "http://x", "api_key": "k"}}
    body["git"]["token"] = "t"
    assert agree(Bind, quick.binding, json.dumps(body).encode())
    command = ExecRequest(argv=["echo", "ä\n"], env={"A": "b"}, timeout_s=1.5)
    assert agree(ExecRequest, quick.command, command.model_dump_json().encode())


@pytest.mark.parametrize("given_", [EXEC, {"argv": ["true"]}, {**EXEC, "argv": [""], "timeout_s": 3600, "env": {}}])
def test_ordinary_commands_are_read_here(given_):
    assert agree(ExecRequest, quick.command, json.dumps(given_, ensure_ascii=False).encode())


@pytest.mark.parametrize(("model", "read", "valid"), [(Bind, quick.binding, BIND), (ExecRequest, quick.command, EXEC)])
def test_what_the_contract_refuses_is_never_read(model, read, valid):
    """Each member by itself, replaced by everything odd."""
    refused = 0
    for name in valid:
        for odd in [*ODD_TEXTS, *URLS, None, True, 0, -1, 3601, [], {}, [1], ["\0"], [""] * 1001, {"A=B": "x"}, {"A": 1}]:
            body = json.dumps({**valid, name: odd}).encode()
            try:
                model.model_validate_json(body)
            except ValidationError:
                refused += 1
                assert read(body) is None, (name, odd)
    assert refused > 50


def test_secrets_do_not_show():
    assert "sk-1" not in repr(quick.binding(json.dumps(BIND).encode()))
    assert "vm-token_1" not in repr(quick.binding(json.dumps(BIND).encode()))

"""Every code a user can meet is in docs/reference/errors.md, and nothing else is."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("error_docs", ROOT / "scripts" / "error_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_every_code_and_no_other(script):
    listed = set(re.findall(r"^\| `([a-z0-9_]+)` \|", script.PAGE.read_text(), re.MULTILINE))
    assert listed == {error.code for error in script.error_classes()}, "run scripts/error_docs.py"


def test_every_error_has_a_sentence_and_a_status(script):
    for error in script.error_classes():
        assert error.__doc__, error
        assert 400 <= error.status < 600, error
        assert re.fullmatch(r"[a-z][a-z0-9_]*", error.code), error

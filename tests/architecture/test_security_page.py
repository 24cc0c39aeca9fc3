"""docs/security.md has all 55 statements, and every test it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def test_every_statement_is_there_with_a_test_or_a_reason() -> None:
    statements = re.findall(r"^(\d+)\. (.+)$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in statements] == list(range(1, 56))
    for number, text in statements:
        assert NAMED.search(text) or "Not met:" in text, f"statement {number} has no test and no reason"


def test_every_test_that_is_named_exists() -> None:
    files = {file.name: file.read_text() for file in ROOT.glob("**/tests/**/test_*.py") if ".venv" not in file.parts}
    files |= {file.name: file.read_text() for file in (ROOT / "tests").glob("**/test_*.py")}
    gone = [f"{file}::{test}" for file, test in NAMED.findall(PAGE) if f"def {test}(" not in files.get(file, "")]
    assert gone == []

"""Write docs/reference/errors.md from the docstrings of the error classes."""

import importlib
import pkgutil
from collections import defaultdict
from pathlib import Path

import ff_cloud
import ff_core
from ff_core.errors import FFError

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"
HEAD = """# Errors

Every error of the API is a problem document (RFC 9457) with these members: `status`, a stable `code` for programs,
`detail` for people (it may say more than the sentence below), `request_id` to find it in the server's log.
`invalid_input` and its kin add `errors`, a list of `field` and `message`. New codes may be added; the meaning of a
code does not change. Made by `scripts/error_docs.py`.

| Code | Status | Meaning |
|---|---|---|
"""


def error_classes() -> list[type[FFError]]:
    """Every error class of the two packages, from all of their modules."""
    for package in (ff_core, ff_cloud):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: list[type[FFError]] = []
    waiting: list[type[FFError]] = [FFError]
    while waiting:
        error = waiting.pop()
        found.append(error)
        waiting += error.__subclasses__()
    ours = (ff_core.__name__ + ".", ff_cloud.__name__ + ".")
    return [error for error in found if error.__module__.startswith(ours)]


def render() -> str:
    """The page."""
    by_code: dict[str, list[type[FFError]]] = defaultdict(list)
    for error in sorted(set(error_classes()), key=lambda error: (len(error.__mro__), error.__module__, error.__qualname__)):
        by_code[error.code].append(error)
    return HEAD + "".join(_row(code, errors) for code, errors in sorted(by_code.items()))


def _row(code: str, errors: list[type[FFError]]) -> str:
    # A class without a code of its own is a variety of the one above it.
    sentences = {_sentence(error): None for error in errors if "code" in vars(error)} or {_sentence(errors[0]): None}
    statuses = {str(error.status): None for error in errors}
    return f"| `{code}` | {', '.join(statuses)} | {' / '.join(sentences)} |\n"


def _sentence(error: type[FFError]) -> str:
    text = " ".join((error.__doc__ or "").split())
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render())
    print(f"{len(PAGE.read_text().splitlines()) - len(HEAD.splitlines())} codes")

"""Log lines hold no secrets."""

import io
import json
import logging
import sys

import pytest
import structlog

from ff_cloud.kit.telemetry import configure_logging, scrub


@pytest.fixture
def logged(monkeypatch):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("json")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers = before[0]
    root.setLevel(before[1])
    structlog.reset_defaults()
    logging.getLogger("uvicorn.access").disabled = False


@pytest.mark.parametrize(
    "key",
    ["password", "new_password", "Authorization", "access_token", "token", "api_key", "X-Api-Key", "client_secret", "Set-Cookie"],
)
def test_values_of_secret_names_are_hidden_at_any_depth(key):
    event = scrub(None, "info", {"event": "x", key: "hunter2", "deep": {"list": [{key: {"a": "hunter2"}}]}})
    assert "hunter2" not in json.dumps(event)
    assert event["event"] == "x"


def test_counts_of_tokens_are_no_secrets():
    assert scrub(None, "info", {"input_tokens": 5}) == {"input_tokens": 5}


def test_our_lines_and_those_of_libraries_are_json_and_scrubbed(logged):
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("ours").info("thing.done", token="hunter2", count=3)
        logging.getLogger("theirs").warning("hello %s", "you", extra={"password": "hunter2"})
    ours, theirs = logged()
    assert (ours["event"], ours["request_id"], ours["count"], ours["token"]) == ("thing.done", "r1", 3, "[hidden]")
    assert (theirs["event"], theirs["level"], theirs["password"]) == ("hello you", "warning", "[hidden]")


def test_exceptions_are_told(logged):
    structlog.get_logger("ours").error("thing.failed", exc_info=ZeroDivisionError("by zero"))
    (line,) = logged()
    assert "ZeroDivisionError" in line["exception"]

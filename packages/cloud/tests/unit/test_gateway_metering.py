"""Usage is read out of answers cut anywhere, and out of nothing else."""

import json
from itertools import pairwise

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.gateway.metering import LINE_BYTES_MAX, Meter, Spent
from ff_cloud.gateway.prices import Price, cost_micro_usd

START = {
    "type": "message_start",
    "message": {
        "model": "claude-haiku-4-5-20251001",
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 4000,
            "output_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        },
    },
}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'a "usage" of {"usage": {"output_tokens": 9}}\n'}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 55}}
SPENT = Spent("claude-haiku-4-5-20251001", 10, 55, 4000, 300, 200)


def sse(*events: dict, newline: str = "\n") -> bytes:
    return "".join(f"event: {e['type']}{newline}data: {json.dumps(e)}{newline}{newline}" for e in events).encode()


def head(kind: str = "text/event-stream; charset=utf-8", status: int = 200, **more: str) -> httpx2.Response:
    return httpx2.Response(status, headers={"content-type": kind, **more})


def read(meter: Meter, response: httpx2.Response, *pieces: bytes) -> Spent | None:
    take = meter.reads(response)
    for piece in pieces:
        take(piece)
    return meter.spent()


@given(st.lists(st.integers(0, 900), max_size=30), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_cut_anywhere_reads_the_same(cuts, newline):
    whole = sse(START, DELTA, END, newline=newline)
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(places)]
    assert read(Meter(), head(), *pieces) == SPENT


def test_what_came_before_a_cut_counts():
    assert read(Meter(), head(), sse(START), sse(DELTA)[:30]) == Spent(SPENT.model, 10, 1, 4000, 300, 200)


def test_one_json_object_reads_too():
    message = {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}
    text = json.dumps(message).encode()
    assert read(Meter(), head("application/json"), text[:7], text[7:]) == Spent("m", 3, 4, 0, 0)


@pytest.mark.parametrize(
    "response",
    [head(status=529), head("text/html"), head(**{"content-encoding": "gzip"})],
    ids=["failure", "another type", "packed"],
)
def test_other_answers_are_not_read(response):
    assert read(Meter(), response, sse(START, END)) is None


@pytest.mark.parametrize("usage", [{"output_tokens": -1}, {"output_tokens": "7"}, {"output_tokens": True}, 5, None, []])
def test_nonsense_is_left_out(usage):
    assert read(Meter(), head(), sse({**END, "usage": usage})) is None


def test_a_line_without_end_is_not_kept():
    meter = Meter()
    take = meter.reads(head())
    for _ in range(2 * LINE_BYTES_MAX // 1000):
        take(b"x" * 1000)
    assert len(meter._rest) <= LINE_BYTES_MAX
    take(b'"usage"\n' + sse(START, END))
    assert meter.spent() == SPENT


def test_cost_by_list_price_or_none():
    # 10 + 4000 * 0.1 + 100 * 1.25 + 200 * 2 input at 1 $, 55 output at 5 $.
    assert cost_micro_usd(SPENT) == 10 + 400 + 125 + 400 + 275
    assert cost_micro_usd(Spent("claude-of-tomorrow", 1, 1, 0, 0)) is None
    assert cost_micro_usd(Spent("claude-of-tomorrow", 1, 1, 0, 0), {"claude-of-tomorrow": Price(2, 8)}) == 10

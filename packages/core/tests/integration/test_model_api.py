"""The scripted model API over real HTTP, as a client and a bad network see it."""

import asyncio
import json
import signal
import sys
import time

import httpx2 as httpx
import pytest

from ff_core.testing.model_api import ModelApi

TOOLS = [{"name": "Bash"}]


@pytest.fixture
async def api():
    async with ModelApi() as api:
        yield api


@pytest.fixture
async def client(api):
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as client:
        yield client


def asking(prompt: str, **more) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "claude-x", "messages": messages, "tools": TOOLS, "stream": True} | more


async def ask(client, prompt: str, **more):
    return await client.post("/v1/messages?beta=true", json=asking(prompt, **more))


def events(text: str) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def said(text: str) -> str:
    deltas = [event.get("delta", {}) for event in events(text)]
    return "".join(delta.get("text", "") for delta in deltas)


async def test_a_streamed_reply_and_its_record(api, client):
    answer = await ask(client, "%say hello there")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert said(answer.text) == "hello there"
    (record,) = api.requests
    assert (record.method, record.path, record.kind) == ("POST", "/v1/messages?beta=true", "main")
    assert record.plan == [("say", "hello there")]
    assert record.outcome == "stream message_stop deltas=2"
    assert api.prompts == ["%say hello there"]


async def test_a_whole_reply(client):
    answer = (await ask(client, "%think hm\n%bash ls", stream=False)).json()
    assert [block["type"] for block in answer["content"]] == ["thinking", "tool_use"]
    assert answer["stop_reason"] == "tool_use"
    assert answer["usage"]["output_tokens"] > 0


async def test_errors_are_counted_per_request(client):
    script = "%error 529 times=2 retry-after=1\n%say fine"
    answers = [await ask(client, script) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [529, 529, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert answers[0].json()["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert said(answers[2].text) == "fine"
    for _ in range(3):
        assert (await ask(client, "%error 401 should-retry=false")).headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("how", "error"), [("eof", httpx.RemoteProtocolError), ("rst", httpx.ReadError)])
async def test_a_connection_is_cut_once(api, client, how, error):
    script = f"%drop after=3 how={how} times=1\n%stream 5 200 w\n%end"
    got, caught = "", None
    try:
        async with client.stream("POST", "/v1/messages", json=asking(script)) as answer:
            async for text in answer.aiter_text():
                got += text
    except httpx.TransportError as raised:
        caught = raised
    assert isinstance(caught, error)
    assert "message_stop" not in got
    if how == "eof":
        assert said(got) == "w0 w1 w2 "
    assert api.requests[0].outcome == f"cut after 3 ({how})"
    assert said((await ask(client, script)).text) == "w0 w1 w2 w3 w4 "


async def test_an_error_event_ends_the_stream_in_order(client):
    answer = await ask(client, "%say a\n%sse-error overloaded_error times=1")
    assert events(answer.text)[-1]["error"]["type"] == "overloaded_error"


async def test_pauses_and_rates_take_their_time(client):
    began = time.monotonic()
    await ask(client, "%lag 0.1\n%stream 10 100\n%sleep 0.1\n%stall 0.1 after=5\n%end")
    # The stall falls into the paced block, which then catches up: 0.1 + 0.15 + 0.1.
    assert 0.34 <= time.monotonic() - began < 3


async def test_a_stall_is_visible_as_silence_and_a_client_that_leaves_is_noticed(api, client):
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/messages", json=asking("%stall 600 after=1\n%say a b c"), timeout=0.3)
    async with asyncio.timeout(5):
        while not api.requests[0].outcome:
            await asyncio.sleep(0.01)
    assert api.requests[0].outcome == "client gone after 1"


async def test_leaving_does_not_wait_for_open_streams():
    began = time.monotonic()
    async with ModelApi() as api, httpx.AsyncClient(timeout=20) as client:
        task = asyncio.create_task(client.post(f"{api.url}/v1/messages", json=asking("%stall 600\n%say x")))
        async with asyncio.timeout(5):
            while not api.requests:
                await asyncio.sleep(0.01)
        await api.__aexit__(None, None, None)
        with pytest.raises(httpx.RemoteProtocolError):
            await task
    assert time.monotonic() - began < 5


async def test_queued_replies_go_to_the_next_main_requests(api, client):
    api.queue("%say one\n%end\n%say two")
    await client.post("/_scripted/next", json={"script": "%say three"})
    assert said((await ask(client, "title?", tools=[])).text) == "ok"
    assert [said((await ask(client, "x")).text) for _ in range(4)] == ["one", "two", "three", "You said: x"]


async def test_other_routes(api, client):
    assert (await client.head("/api/hello")).status_code == 200
    assert (await client.post("/v1/messages/count_tokens", json=asking("x"))).json()["input_tokens"] > 1
    assert len((await client.get("/v1/models")).json()["data"]) == 4
    assert (await client.get("/nope")).json()["error"]["type"] == "not_found_error"
    bad = await ask(client, "%nonsense")
    assert (bad.status_code, bad.json()["error"]["message"]) == (400, "bad script: there is no directive %nonsense")
    rows = (await client.get("/_scripted/requests")).json()
    assert [row["outcome"] for row in rows][:3] == ["head", "count_tokens", "models"]
    await client.post("/_scripted/reset")
    assert api.requests == []


async def test_the_log_of_requests_is_bounded(api, client):
    for number in range(520):
        await client.head(f"/{number}")
    assert len(api.requests) == 500
    assert api.requests[-1].path == "/519"


async def test_tokens_and_the_log_file(tmp_path):
    log = tmp_path / "log.jsonl"
    async with ModelApi(tokens=["key-secret-1234"], log=log) as api, httpx.AsyncClient(base_url=api.url) as client:
        assert (await ask(client, "x")).status_code == 401
        key, bearer = {"x-api-key": "key-secret-1234"}, {"authorization": "Bearer key-secret-1234"}
        for headers in (key, bearer):
            answer = await client.post("/v1/messages", json=asking("%say yes"), headers=headers)
            assert said(answer.text) == "yes"
        assert api.requests[1].headers["x-api-key"] == "key-secret-1234"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["outcome"] == "401 authentication_error"
    assert lines[1]["headers"]["x-api-key"] == "…1234"
    assert "secret" not in log.read_text()


async def test_as_a_program_it_prints_its_address_first(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ff_core.testing.model_api", "--port", "0", "--log", str(tmp_path / "log")),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        async with httpx.AsyncClient(base_url=url) as client:
            assert said((await ask(client, "%say x")).text) == "x"
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert (tmp_path / "log").read_text()

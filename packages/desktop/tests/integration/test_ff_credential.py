"""``ff credential`` and ``ff usage`` against a server that remembers what it was told."""

import asyncio
import json
import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ff_core.testing.serve import serving

VALUE = "sk-ant-api03-secret-value-WXYZ"
WORKSPACE = "00000000-0000-7000-8000-0000000000aa"
AT = "2026-01-01T00:00:00Z"
ROW = {
    "day": "2026-01-02", "workspace_id": WORKSPACE, "model": "claude-haiku-4-5", "requests": 2, "input_tokens": 10,
    "output_tokens": 20, "cache_read_tokens": 30, "cache_write_tokens": 40, "cost_micro_usd": 1500,
}  # fmt: skip


class Remembering:
    def __init__(self):
        self.values = {}

    def app(self):
        path = "/v1/me/credentials/{kind}"
        return Starlette(
            routes=[
                Route("/v1/me/credentials", self.listed),
                Route(path, self.put, methods=["PUT"]),
                Route(path, self.delete, methods=["DELETE"]),
                Route("/v1/me/usage", self.usage),
                Route("/v1/workspaces", self.workspaces),
            ]
        )

    def view(self, kind):
        return {"kind": kind, "hint": self.values[kind][-4:], "set_at": AT, "last_used_at": None}

    async def listed(self, _request):
        return JSONResponse({"items": [self.view(kind) for kind in self.values]})

    async def put(self, request):
        kind = request.path_params["kind"]
        self.values[kind] = (await request.json())["value"]
        return JSONResponse(self.view(kind))

    async def delete(self, request):
        if self.values.pop(request.path_params["kind"], None) is None:
            problem = {"title": "Unset", "status": 404, "code": "not_found", "detail": "You have set none."}
            return JSONResponse(problem, 404, media_type="application/problem+json")
        return Response(status_code=204)

    async def usage(self, request):
        if "cursor" in request.query_params:
            return JSONResponse({"items": [{**ROW, "day": "2026-01-01", "model": "other", "cost_micro_usd": None}]})
        return JSONResponse({"items": [ROW], "next_cursor": "next"})

    async def workspaces(self, _request):
        return JSONResponse({"items": []})


@pytest.fixture
def remembering(ff):
    server, ready, box = Remembering(), threading.Event(), {}

    async def run():
        box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving(server.app()) as url:
            ff.environment |= {"FF_SERVER": url, "FF_API_KEY": "ffk_x"}
            ready.set()
            await box["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    yield server
    box["loop"].call_soon_threadsafe(box["end"].set)
    thread.join(10)


def test_a_key_comes_from_standard_input_and_is_not_shown(ff, remembering):
    result = ff("credential", "set", "anthropic_api_key", stdin=VALUE + "\n")
    assert result.exit_code == 0, result.output
    assert remembering.values == {"anthropic_api_key": VALUE}
    listed = ff("credential", "ls")
    assert "…WXYZ" in listed.output
    shown = json.loads(ff("credential", "ls", "--json").output)
    assert [one["kind"] for one in shown["credentials"]] == ["anthropic_api_key"]
    assert VALUE[:-4] not in result.output + listed.output + json.dumps(shown)


@pytest.mark.parametrize("stdin", ["", "\n", "short\n", "two words of a key\n", "x" * 5000 + "\n", "sk-ant-\x07-bell\n"])
def test_what_is_no_key_is_not_sent_and_not_repeated(ff, remembering, stdin):
    result = ff("credential", "set", "github_token", stdin=stdin)
    assert result.exit_code == 2, result.output
    assert remembering.values == {}
    assert not stdin.strip() or stdin.strip() not in result.output


def test_a_key_on_the_command_line_is_refused(ff, remembering):
    assert ff("credential", "set", "github_token", VALUE).exit_code == 2
    assert ff("credential", "set", "of_no_kind", stdin=VALUE).exit_code == 2
    assert remembering.values == {}


def test_a_key_is_removed_once(ff, remembering):
    remembering.values["github_token"] = VALUE
    assert ff("credential", "rm", "github_token").exit_code == 0
    again = ff("credential", "rm", "github_token")
    assert again.exit_code != 0
    assert "not_found" in again.output


def test_usage_is_one_list_of_all_pages(ff, remembering):
    rows = [line.split("\t") for line in ff("usage").output.splitlines()]
    assert rows == [
        ["2026-01-02", WORKSPACE, "claude-haiku-4-5", "2", "10", "20", "30", "40", "0.0015"],
        ["2026-01-01", WORKSPACE, "other", "2", "10", "20", "30", "40", "?"],
    ]
    assert len(json.loads(ff("usage", "--json").output)["usage"]) == 2

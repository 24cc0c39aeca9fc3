"""Who may call, what is refused, and how."""

import os
import socket
import subprocess
import sys

import httpx2
import pytest

from ff_core.daemon.http import BODY_BYTES_MAX

SESSION = "/v1/sessions/00000000-0000-7000-8000-000000000001"
CALLS = [
    ("GET", "/v1/repository", None),
    ("PUT", "/v1/repository", {}),
    ("PUT", "/v1/repository/seed", {}),
    ("GET", "/v1/sessions", None),
    ("POST", "/v1/sessions", {}),
    ("GET", SESSION, None),
    ("POST", f"{SESSION}/messages", {"text": "hi"}),
    ("POST", f"{SESSION}/interrupt", {}),
    ("POST", f"{SESSION}/requests/00000000-0000-7000-8000-000000000002", {"decision": "allow"}),
    ("POST", "/v1/exec", {"argv": ["true"]}),
    ("GET", "/v1/events", None),
]
ALL = [("GET", "/v1/health", None), ("POST", "/v1/bind", {}), ("GET", "/nothing", None), *CALLS]


def refused(response, status, code):
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), response.text
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(("method", "path", "body"), ALL)
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        "Basic a-token-of-256-random-bits",
        "a-token-of-256-random-bits",
        b"Bearer \xff\xfe",
    ],
)
def test_nothing_without_the_token(bound, method, path, body, authorization):
    response = bound.http.request(method, path, json=body, headers={"Authorization": authorization})
    refused(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "body"), [call for call in ALL if call[1] != "/v1/health"])
def test_an_older_generation_is_stale_and_a_missing_one_invalid(bound, method, path, body):
    refused(bound.http.request(method, path, json=body, headers={"FF-Generation": "2"}), 409, "stale_generation")
    for nonsense in ("", "-1", "3.0", "x", "9" * 30):
        refused(bound.http.request(method, path, json=body, headers={"FF-Generation": nonsense}), 422, "invalid_input")


def test_health_needs_no_generation_and_says_who_this_is(bound):
    health = bound.http.get("/v1/health", headers={"FF-Generation": "0"}).json()
    assert (health["generation"], health["bound"], health["working"], health["version"]) == (3, True, 0, "0.1.0")
    assert health["journal_seq"] >= 2


def test_an_unknown_address_or_method_is_a_problem_too(bound):
    refused(bound.http.get("/v1/nothing"), 404, "not_found")
    refused(bound.http.get("/v1/sessions/not-a-uuid"), 404, "not_found")
    refused(bound.http.get(SESSION), 404, "not_found")
    response = bound.http.delete("/v1/health")
    refused(response, 405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/sessions", {"nome": "x"}, "nome"),
        ("/v1/sessions", {"name": "a/b"}, "name"),
        ("/v1/sessions", {"name": "x" * 101}, "name"),
        ("/v1/bind", {}, "workspace_id"),
        ("/v1/exec", {"argv": []}, "argv"),
        ("/v1/exec", {"argv": ["a\0b"]}, "argv.0"),
        ("/v1/exec", {"argv": ["true"], "timeout_s": -1}, "timeout_s"),
        ("/v1/exec", {"argv": ["true"], "env": {"A=B": "x"}}, "env.A=B.[key]"),
    ],
)
def test_a_wrong_body_names_the_field(bound, path, body, field):
    problem = refused(bound.http.post(path, json=body), 422, "invalid_input")
    assert field in [error["field"] for error in problem["errors"]]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "\\ud800"}', b"[" * 100_000])
def test_what_is_not_such_json_is_invalid(bound, body):
    refused(bound.http.post("/v1/sessions", content=body), 422, "invalid_input")


def test_errors_never_repeat_what_was_sent(bound, bind_body):
    wrong = {**bind_body, "model": {"api_key": ["hunter2"], "base_url": "hunter2"}, "name": "/hunter2"}
    response = bound.http.post("/v1/bind", json=wrong)
    refused(response, 422, "invalid_input")
    assert "hunter2" not in response.text


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(bound):
    big = b"x" * (BODY_BYTES_MAX + 1)
    refused(bound.http.post("/v1/exec", content=big), 413, "body_too_large")
    refused(bound.http.post("/v1/exec", content=iter([big[:700_000], big[700_000:]])), 413, "body_too_large")
    # Refused by its announcement alone: nothing of the body is sent here.
    host, port = bound.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        lines = [
            "POST /v1/exec HTTP/1.1",
            "Host: x",
            f"Authorization: {bound.http.headers['authorization']}",
            "FF-Generation: 3",
            "Content-Length: 99999999999",
        ]
        wire.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        assert wire.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_seed_may_be_larger_than_other_bodies_and_is_refused_for_what_it_is(daemon, bind_body):
    daemon.start().http.post("/v1/bind", json=bind_body)
    refused(daemon.http.put("/v1/repository/seed", content=bytes(3 * BODY_BYTES_MAX)), 422, "seed_refused")
    assert [path.name for path in daemon.root.iterdir() if path.name.startswith(".repo")] == []
    assert daemon.http.put("/v1/repository", json={}).status_code == 200
    refused(daemon.http.put("/v1/repository/seed", content=b""), 409, "seed_too_late")


def test_an_unbound_daemon_answers_nothing_else(daemon, bind_body):
    daemon.start()
    assert daemon.http.get("/v1/health").json()["workspace_id"] is None
    for method, path, body in CALLS:
        refused(daemon.http.request(method, path, json=body), 409, "not_bound")
    assert daemon.http.post("/v1/bind", json=bind_body).json()["bound"] is True
    refused(daemon.http.post("/v1/sessions", json={}), 409, "workspace_not_ready")
    refused(daemon.http.get("/v1/repository"), 409, "workspace_not_ready")


def test_binding_again_is_fine_for_the_same_workspace_only(bound, bind_body):
    assert bound.http.post("/v1/bind", json=bind_body).status_code == 200
    other = {**bind_body, "workspace_id": "00000000-0000-7000-8000-0000000000ff"}
    refused(bound.http.post("/v1/bind", json=other), 409, "already_bound")
    assert bound.http.get("/v1/health").json()["workspace_id"] == bind_body["workspace_id"]


def test_sessions_through_the_door(bound):
    made = bound.http.post("/v1/sessions", json={"name": "naïve ☃"})
    assert made.status_code == 201
    session = made.json()
    assert bound.http.get(f"/v1/sessions/{session['id']}").json() == session
    assert session in bound.http.get("/v1/sessions").json()
    assert bound.http.post(f"/v1/sessions/{session['id']}/interrupt", json={}).json() == {"was_working": False, "cancelled": 0}
    refused(
        bound.http.post(f"/v1/sessions/{session['id']}/requests/00000000-0000-7000-8000-000000000002", json={"decision": "deny"}),
        404,
        "not_found",
    )


def test_the_repository_through_the_door(bound):
    assert bound.http.get("/v1/repository").json()["branch"] == "main"
    refused(bound.http.put("/v1/repository", json={"url": "https://example.invalid/a/b.git"}), 409, "repository_differs")
    refused(bound.http.put("/v1/repository", json={"url": "git@example.invalid:a/b.git"}), 422, "repo_url_invalid")


def test_a_request_has_one_id_from_caller_to_log_and_back(daemon, bind_body):
    daemon.start()
    named = {"X-Request-Id": "01J-a.b_c"}
    assert daemon.http.post("/v1/bind", json=bind_body, headers=named).headers["x-request-id"] == "01J-a.b_c"
    problem = daemon.http.get("/v1/nothing\u2028", headers=named)
    assert (problem.headers["x-request-id"], problem.json()["request_id"]) == ("01J-a.b_c", "01J-a.b_c")
    assert daemon.http.get("/v1/health", headers=named).headers["x-request-id"] == "01J-a.b_c"
    with daemon.http.stream("GET", "/v1/events?after=0", headers=named) as stream:
        assert stream.headers["x-request-id"] == "01J-a.b_c"
    for nonsense in ("", "a b", "x" * 65, 'a"b', "ä".encode()):
        answer = daemon.http.get("/v1/sessions", headers={"X-Request-Id": nonsense})
        assert "x-request-id" not in answer.headers
    daemon.end()
    assert [(line["method"], line["path"], line["status"], line["request_id"]) for line in daemon.log[:3]] == [
        ("POST", "/v1/bind", 200, "01J-a.b_c"),
        ("GET", "/v1/nothing\u2028", 404, "01J-a.b_c"),  # one line, whatever was asked for
        ("GET", "/v1/events", 200, "01J-a.b_c"),
    ]
    assert [line["request_id"] for line in daemon.log[3:]] == [None] * 5
    assert all(0 <= line["took_ms"] < 60_000 for line in daemon.log)


@pytest.mark.parametrize("reader", ["away", "gone"])
def test_a_log_that_nobody_reads_stops_nothing(root, reader):
    ours, its = os.pipe()
    env = {
        **os.environ,
        "FF_ROOT": str(root),
        "FF_PORT": "0",
        "FF_VM_ID": "00000000-0000-7000-8000-0000000000bb",
        "FF_GENERATION": "3",
        "FF_TOKEN_SHA256": "0" * 64,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "ff_core.daemon"], env=env, stdout=subprocess.PIPE, stderr=its, text=True
    ) as process:
        os.close(its)
        if reader == "gone":
            os.close(ours)
        try:
            port = process.stdout.readline().rsplit(":", 1)[1].strip()
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10) as http:
                for _ in range(1000):  # some hundred thousand bytes; a pipe holds 65,536
                    assert http.get("/v1/sessions" + "x" * 100).status_code == 401
        finally:
            process.terminate()
    assert process.returncode == 0
    if reader == "away":
        os.close(ours)

"""What an address at the gateway can mean: exactly one request to an allowed server, or a refusal."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.errors import SettingsInvalid
from ff_cloud.gateway.git_errors import GitHostRefused, GitHubPathRefused, GitLfsUnsupported, GitMoved, GitPathRefused
from ff_cloud.gateway.git_hosts import GitRequest, follow, origin_of, parse_host, parse_hosts, read_request
from ff_cloud.gateway.github_rest import allowed

HOSTS = ("https://github.com", "http://10.0.0.1:3000")
FETCH = "service=git-upload-pack"
ASKED = GitRequest("https://github.com", "o/r.git", "info/refs", "git-upload-pack")


@pytest.mark.parametrize(
    ("method", "path", "query", "upstream"),
    [
        ("GET", "/git/https/github.com/o/r.git/info/refs", FETCH, "https://github.com/o/r.git/info/refs?service=git-upload-pack"),
        ("GET", "/git/http/10.0.0.1:3000/r/info/refs", "service=git-receive-pack", "http://10.0.0.1:3000/r/info/refs?service=git-receive-pack"),
        ("POST", "/git/https/github.com/o/r/git-upload-pack", "", "https://github.com/o/r/git-upload-pack"),
        ("POST", "/git/https/github.com/a/b/c/..d/git-receive-pack", "", "https://github.com/a/b/c/..d/git-receive-pack"),
    ],
)  # fmt: skip
def test_the_smart_protocol_passes(method, path, query, upstream):
    asked = read_request(method, path, query, HOSTS)
    assert asked.upstream == upstream
    assert asked.address == path + (f"?{query}" if query else "")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/git/https/github.com/o/r/info/refs", ""),  # the dumb protocol
        ("GET", "/git/https/github.com/o/r/info/refs", "service=git-upload-archive"),
        ("GET", "/git/https/github.com/o/r/info/refs", FETCH + "&x=1"),
        ("GET", "/git/https/github.com/o/r/info/refs", "x=1&" + FETCH),
        ("GET", "/git/https/github.com/o/r/info/refs", "service=service=git-upload-pack"),
        ("GET", "/git/https/github.com/o/r/info/refs", "service=git%2Dupload-pack"),
        ("HEAD", "/git/https/github.com/o/r/info/refs", FETCH),
        ("POST", "/git/https/github.com/o/r/info/refs", FETCH),
        ("GET", "/git/https/github.com/o/r/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/r/git-upload-pack", "x"),
        ("POST", "/git/https/github.com/o/r/git-upload-pack/", ""),
        ("POST", "/git/https/github.com/git-upload-pack", ""),
        ("POST", "/git/https/github.com//r/git-upload-pack", ""),
        ("POST", "/git/https/github.com/../r/git-upload-pack", ""),
        ("POST", "/git/https/github.com/./r/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/../git-upload-pack", ""),
        ("POST", "/git/https/github.com/o%2fr/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/%2e%2e/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o\\..\\r/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/r;x/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/r#/git-upload-pack", ""),
        ("POST", "/git/https/github.com/o/r/git-upload-pack\n", ""),
        ("POST", "/git/https/github.com/" + "a/" * 21 + "git-upload-pack", ""),
        ("POST", "/git/file/github.com/o/r/git-upload-pack", ""),
        ("POST", "/git/https/me@github.com/o/r/git-upload-pack", ""),
        ("GET", "/git/https/github.com/o/r/HEAD", ""),
        ("GET", "/git/https/github.com/login", ""),
    ],
)
def test_everything_else_is_refused(method, path, query):
    with pytest.raises(GitPathRefused):
        read_request(method, path, query, HOSTS)


@pytest.mark.parametrize(
    "place",
    ["https/gitlab.com", "http/github.com", "https/github.com:443", "https/github.com:22", "https/github.com.evil.example",
     "https/evil-github.com", "http/10.0.0.1", "http/169.254.169.254", "http/localhost:5432", "https/[::1]", "https/github.com."],
)  # fmt: skip
def test_only_the_servers_on_the_list_are_asked(place):
    with pytest.raises(GitHostRefused):
        read_request("POST", f"/git/{place}/o/r/git-upload-pack", "", HOSTS)


def test_lfs_is_refused_with_a_sentence_of_its_own():
    with pytest.raises(GitLfsUnsupported, match="GIT_LFS_SKIP_SMUDGE"):
        read_request("POST", "/git/https/github.com/o/r.git/info/lfs/objects/batch", "", HOSTS)


PIECES = st.sampled_from(
    ["/", "//", "..", ".", "%2e", "%2f", "%5c", "\\", "@", ":", "?", "#", ";", "\n", "\0", " ", "é", "git", "https", "http",
     "github.com", "10.0.0.1:3000", "evil.example", "o", "r.git", "info/refs", "git-upload-pack", "git-receive-pack", "[::1]"]
)  # fmt: skip


@given(
    st.sampled_from(["GET", "POST", "PUT"]), st.lists(PIECES, max_size=14).map("".join), st.sampled_from(["", FETCH, "service=x"])
)
def test_whatever_is_asked_nothing_but_an_allowed_server_is_reached_and_no_letter_changes(method, rest, query):
    path = "/git/https/github.com/" + rest
    try:
        asked = read_request(method, path, query, HOSTS)
    except (GitPathRefused, GitHostRefused, GitLfsUnsupported):
        return
    parts = urlsplit(asked.upstream)
    assert f"{parts.scheme}://{parts.netloc}" == "https://github.com"
    assert parts.path == "/" + rest
    assert re.fullmatch(r"[A-Za-z0-9._~+/-]+", parts.path)
    assert not {"", ".", ".."} & set(parts.path[1:].split("/"))


def test_a_redirect_within_the_server_becomes_an_address_of_the_gateway():
    for location in ("https://github.com/o/new.git/info/refs?" + FETCH, "/o/new.git/info/refs?" + FETCH):
        assert follow(ASKED, location).address == "/git/https/github.com/o/new.git/info/refs?" + FETCH


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/o/r/info/refs?" + FETCH,
        "//evil.example/o/r/info/refs?" + FETCH,
        "http://github.com/o/r/info/refs?" + FETCH,
        "https://github.com:444/o/r/info/refs?" + FETCH,
        "https://github.com@evil.example/o/r/info/refs?" + FETCH,
        "/o/r/info/refs?service=git-receive-pack",
        "/o/r/info/refs",
        "https://github.com/login",
        "http://[",
        "javascript:x",
        "",
    ],
)
def test_a_redirect_to_anywhere_else_is_refused(location):
    with pytest.raises(GitMoved):
        follow(ASKED, location)


@given(st.text(max_size=60))
def test_no_redirect_leaves_the_server(location):
    try:
        moved = follow(ASKED, location)
    except GitMoved:
        return
    assert (moved.origin, moved.service) == (ASKED.origin, ASKED.service)


def test_a_pack_is_never_redirected():
    with pytest.raises(GitMoved):
        follow(GitRequest("https://github.com", "o/r", "git-receive-pack", "git-receive-pack"), "/o/new/git-receive-pack")


def test_the_setting_names_servers():
    assert parse_hosts("github.com, HTTPS://Git.Example:443,http://10.0.0.1:3000,github.com,") == (
        "https://github.com",
        "https://git.example",
        "http://10.0.0.1:3000",
    )
    assert parse_hosts("") == ()
    assert origin_of("https://GitHub.com/") == "https://github.com"


@pytest.mark.parametrize(
    "entry", ["https://github.com/", "a b", "ftp://x", "me@x", "x:0", "x:99999", "-x", "*", "*.github.com", "x\n"]
)
def test_the_setting_refuses_what_names_none(entry):
    with pytest.raises(SettingsInvalid, match="must name git servers"):
        parse_host(entry)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/repos/o/r/pulls", "state=open&per_page=100"),
        ("/repos/o/r/pulls/7/reviews", ""),
        ("/repos/o/r/commits/abc123/check-runs", "filter=latest"),
        ("/repos/o/r/issues/7/comments", "since=2026-01-01T00:00:00Z"),
        ("/repos/o/r", ""),
    ],
)
def test_github_may_be_read_where_pull_requests_are(path, query):
    assert allowed("GET", "/github-api" + path, query) == path + (f"?{query}" if query else "")


REST_PIECES = st.sampled_from(
    ["/", "..", ".", "%2e", "%2f", "\\", "?", "#", "\n", "repos", "o", "r", "pulls", "keys", "7", "commits"]
)


@given(st.lists(REST_PIECES, max_size=12).map("".join))
def test_whatever_is_asked_of_github_stays_below_one_repository(rest):
    try:
        asked = allowed("GET", "/github-api/repos/o/r/" + rest, "")
    except GitHubPathRefused:
        return
    assert asked == "/repos/o/r/" + rest
    assert re.fullmatch(r"[A-Za-z0-9._:~/-]+", asked)
    assert not {"", ".", ".."} & set(asked[1:].split("/"))
    assert asked.split("/")[4] in {"pulls", "commits"}


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/repos/o/r/pulls", ""),
        ("DELETE", "/repos/o/r", ""),
        ("GET", "/user", ""),
        ("GET", "/repos/o/r/actions/secrets", ""),
        ("GET", "/repos/o/r/keys", ""),
        ("GET", "/repos/o/r/contents/a", ""),
        ("GET", "/repos/o/r/pulls/../keys", ""),
        ("GET", "/repos/o/../../user", ""),
        ("GET", "/repos/../r/pulls", ""),
        ("GET", "/repos/o/..", ""),
        ("GET", "/repos/o/r/pulls/%2e%2e/keys", ""),
        ("GET", "/repos/o/r/pulls//keys", ""),
        ("GET", "/repos/o/r/pulls/", ""),
        ("GET", "/graphql", ""),
        ("GET", "/repos/o/r/pulls", "a=b#c"),
        ("GET", "/repos/o/r/pulls", "a=b&"),
        ("GET", "/repos/o/r/pulls", "a=" + "b" * 300),
    ],
)
def test_the_rest_of_github_is_refused(method, path, query):
    with pytest.raises(GitHubPathRefused):
        allowed(method, "/github-api" + path, query)

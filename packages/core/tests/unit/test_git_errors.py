"""Git's own words, recorded from real failures, become our errors."""

import pytest

from ff_core.git.errors import explain, scrub

URL = "https://git.example.org/o/r"


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        ("repo_not_found", "Cloning into 'z'...\nremote: Not Found\nfatal: repository 'http://h/x.git/' not found\n"),
        ("repo_not_found", "fatal: http://h/x/info/refs not valid: is this a git repository?\n"),
        (
            "repo_auth_failed",
            "fatal: could not read Username for 'http://h': terminal prompts disabled\n",
        ),
        ("repo_auth_failed", "fatal: Authentication failed for 'http://h/x.git/'\n"),
        (
            "repo_auth_failed",
            "fatal: unable to access 'https://h/x/': The requested URL returned error: 403\n",
        ),
        (
            "repo_unreachable",
            (
                "fatal: unable to access 'http://127.0.0.1:1/x/': Failed to connect to 127.0.0.1 port 1 after 0 ms: "
                "Couldn't connect to server\n"
            ),
        ),
        (
            "repo_unreachable",
            "fatal: unable to access 'http://nosuch.invalid/x/': Could not resolve host: nosuch.invalid\n",
        ),
        (
            "repo_unreachable",
            "fatal: unable to access 'https://h/x/': SSL certificate problem: self-signed certificate\n",
        ),
        ("repo_unreachable", "fatal: unable to access 'https://h/x/': The requested URL returned error: 503\n"),
        (
            "repo_unreachable",
            (
                "error: RPC failed; curl 18 transfer closed with outstanding read data remaining\n"
                "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF\n"
                "fatal: fetch-pack: invalid index-pack output\n"
            ),
        ),
        ("branch_not_found", "fatal: Remote branch nope not found in upstream origin\n"),
        (
            "clone_disk_full",
            "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output\n",
        ),
        (
            "clone_disk_full",
            (
                "error: unable to write file f2\nfatal: unable to checkout working tree\n"
                "warning: Clone succeeded, but checkout failed.\n"
            ),
        ),
        ("git_failed", "fatal: something nobody has seen before\n"),
        ("git_failed", ""),
    ],
)
def test_each_failure_has_its_code_and_a_sentence(code, stderr):
    error = explain(128, stderr, url=URL, branch="nope")
    assert error.code == code
    assert error.detail.endswith((".", "before", "nothing"))
    assert len(error.detail) > 20


def test_a_token_in_an_address_is_never_repeated():
    stderr = "fatal: odd thing with https://user:s3cret@host/x and https://s3cret@host/y\n"
    error = explain(1, stderr, url="https://user:s3cret@host/x")
    assert "s3cret" not in error.detail
    assert "https://host/x" in error.detail
    assert scrub("http://a:b@h/p x@y") == "http://h/p x@y"


def test_long_stderr_is_cut():
    assert len(explain(1, "x" * 100_000).detail) < 600

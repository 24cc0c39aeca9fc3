"""Addresses, branches, credentials: accepted and refused before git sees them."""

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_core.git.errors import BranchInvalid, RepoAuthFailed, RepoUrlInvalid
from ff_core.git.remote import Credential, check_branch, parse_repo_url


@pytest.mark.parametrize(
    ("text", "origin", "path"),
    [
        ("https://github.com/o/r.git", "https://github.com", "/o/r.git"),
        ("https://GitHub.com:443/o/r/", "https://github.com", "/o/r"),
        ("https://git.example.org:8443/a/b/c", "https://git.example.org:8443", "/a/b/c"),
        ("https://[::1]:8443/r", "https://[::1]:8443", "/r"),
        ("https://host/~user/r%20x", "https://host", "/~user/r%20x"),
        ("HTTPS://host/r", "https://host", "/r"),
    ],
)
def test_good_addresses(text, origin, path):
    url = parse_repo_url(text)
    assert (url.origin, url.path, str(url)) == (origin, path, origin + path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "looks like"),
        ("-u", "'-'"),
        ("--upload-pack=touch /tmp/x", "'-'"),
        ("http://host/r", "Plain http"),
        ("git@github.com:o/r.git", "SSH"),
        ("ssh://git@github.com/o/r", "SSH"),
        ("https://user:s3cret@host/r", "token separately"),
        ("https://s3cret@host/r", "token separately"),
        ("https://host/r?x=s3cret", "'?'"),
        ("https://host/r#x", "'#'"),
        ("https://host/r\n", "control"),
        ("https://host/a b", "spaces"),
        ("https://host/\x00", "control"),
        ("https://host", "path"),
        ("https://host/", "path"),
        ("https://host/a/../b", "path"),
        ("https://host/a//b", "path"),
        ("https://host/é", "path"),
        ("https:///r", "host"),
        ("https://-host/r", "host"),
        ("https://ho\\st/r", "host"),
        ("https://höst/r", "host"),
        ("https://host:0/r", "host or port"),
        ("https://host:/r", "host or port"),
        ("https://host:99999/r", "host or port"),
        ("https://[::1/r", "host or port"),
        ("file:///etc", "looks like"),
        ("ext::sh -c id", "spaces"),
        ("ext::id", "looks like"),
        ("/etc", "looks like"),
        ("https://host/" + "a" * 2048, "longer"),
    ],
)
def test_refused_addresses_say_what_to_do_and_never_echo(text, sentence):
    with pytest.raises(RepoUrlInvalid, match=sentence.replace("?", r"\?")) as caught:
        parse_repo_url(text)
    assert "s3cret" not in caught.value.detail


def test_plain_http_where_allowed():
    assert str(parse_repo_url("http://127.0.0.1:80/r", allow_plain_http=True)) == "http://127.0.0.1/r"


@given(st.text(max_size=80) | st.builds("https://{}".format, st.text(max_size=60)))
def test_any_text_is_an_address_or_refused(text):
    try:
        url = parse_repo_url(text, allow_plain_http=True)
    except RepoUrlInvalid:
        return
    assert parse_repo_url(str(url), allow_plain_http=True) == url
    assert "@" not in url.origin
    assert str(url).isascii()
    assert not str(url).startswith("-")


HARD = st.lists(
    st.sampled_from(
        [*"ab/.-@{~^:?*[\\ \t\x7f\n", "..", "//", "@{", ".lock", "/.", "HEAD", "é", "🦊", "-", "lock", "refs/heads/"]
    ),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(HARD | st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20))
def test_branch_names_are_those_that_git_accepts(name):
    done = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, cwd="/", check=False)
    try:
        accepted = check_branch(name) == name
    except BranchInvalid:
        accepted = False
    assert accepted == (done.returncode == 0), done.stderr


@pytest.mark.parametrize("name", ["", "HEAD", "-x", "a..b", "a.lock", "a.lock/b", "\0", "\ud800", "é" * 130])
def test_refused_branches(name):
    with pytest.raises(BranchInvalid):
        check_branch(name)


def test_a_credential_hides_its_token_and_refuses_line_breaks():
    assert "s3cret" not in repr(Credential("s3cret"))
    for bad in ("", "a\nhost=evil", "x" * 5000):
        with pytest.raises(RepoAuthFailed):
            Credential(bad)
    with pytest.raises(RepoAuthFailed):
        Credential("ok", username="u\npassword=x")

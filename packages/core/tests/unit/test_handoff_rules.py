"""Pure rules of a handoff: what looks secret, which settings travel, how an index and bytes are written down."""

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_core.git.exact import config, index, words
from ff_core.handoff.fingerprint import Status, mask
from ff_core.handoff.include import looks_like_a_credential, looks_temporary

SECRET = """.env .env.local .ENV prod.env .envrc server.pem a/b/id_rsa id_ed25519_work x.KEY credentials credentials.json
.credentials.json credentials-2024.csv .npmrc .netrc .pypirc .git-credentials a.p12 a.pfx a.kdbx terraform.tfvars
service-account-1.json
secrets.yaml kubeconfig .pgpass""".split()  # noqa: SIM905
PLAIN = """.env.example .env.sample .env.template .env.dist config.env.example id_rsa.pub environment.py credentials.py
credentials.test.ts src/credentials/form.vue keyboard.c monkey envs/readme pem.txt credentials.md settings.json keys.ts""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", SECRET)
def test_secret_by_name(name):
    assert looks_like_a_credential(name.encode())


@pytest.mark.parametrize("name", PLAIN)
def test_not_secret_by_name(name):
    assert not looks_like_a_credential(name.encode())


def test_temporary_by_name():
    assert looks_temporary(b"d/main.py.tmp.1234.1700000000000")
    assert not looks_temporary(b"d/main.py.tmp")
    assert not looks_temporary(b"main.tmp.1/x")


@pytest.mark.parametrize(
    ("name", "value", "carried"),
    [
        ("remote.o.url", "https://me:token@host/x", "https://host/x"),
        ("remote.o.url", "https://token@host/x", "https://host/x"),
        ("remote.o.url", "git@host:x", "git@host:x"),
        ("remote.o.url", "ssh://git:pw@host/x", "ssh://git@host/x"),
        ("remote.o.url", "/some/where", "/some/where"),
        ("remote.o.url", "ext::sh -c x", None),
        ("remote.o.url", "-u", None),
        ("remote.o.uploadpack", "x", None),
        ("remote.o.fetch", "+refs/heads/*:refs/remotes/o/*", "+refs/heads/*:refs/remotes/o/*"),
        ("branch.a.b.c.merge", "refs/heads/x", "refs/heads/x"),
        ("branch.a.remote", "ext::x", None),
        ("branch.a.mergeoptions", "x", None),
        ("submodule.s.update", "rebase", "rebase"),
        ("submodule.s.update", "!x", None),
        ("core.autocrlf", "input", "input"),
        ("core.pager", "x", None),
        ("core.fsmonitor", "x", None),
        ("user.name", "x" * 5000, None),
    ],
)
def test_settings_that_travel(name, value, carried):
    result = config.carried(name.encode(), value.encode())
    assert result == (None if carried is None else carried.encode())
    assert result is None or config.carried(name.encode(), result) == result


@pytest.mark.parametrize(
    ("settings", "upstream"),
    [
        ({"remote": "o", "merge": "refs/heads/x", "fetch": "+refs/heads/*:refs/remotes/o/*"}, "refs/remotes/o/x"),
        ({"remote": "o", "merge": "refs/heads/x", "fetch": "refs/heads/x:refs/remotes/o/y"}, "refs/remotes/o/y"),
        ({"remote": "o", "merge": "refs/pull/7/head", "fetch": "refs/pull/*/head:refs/remotes/o/pr/*"}, "refs/remotes/o/pr/7"),
        ({"remote": "o", "merge": "refs/heads/x", "fetch": "refs/heads/y:refs/remotes/o/y"}, None),
        ({"remote": ".", "merge": "refs/heads/x"}, "refs/heads/x"),
        ({"remote": "o"}, None),
        ({}, None),
    ],
)
def test_what_a_branch_follows(settings, upstream):
    known = [
        (f"{'remote.o' if name == 'fetch' else 'branch.b'}.{name}".encode(), value.encode()) for name, value in settings.items()
    ]
    assert config.upstream(known, b"b") == (None if upstream is None else upstream.encode())


def test_settings_are_written_so_that_nothing_gets_out_of_its_place():
    text = config.render([(b'remote.x"]\\y.url', b'a"\nb\\'), (b'remote.x"]\\y.fetch', b"c"), (b"user.name", b" z ")])
    assert text == b'[remote "x\\"]\\\\y"]\n\turl = "a\\"\\nb\\\\"\n\tfetch = "c"\n[user]\n\tname = " z "\n'


@given(st.binary())
def test_bytes_as_text(value):
    text = words.written(value)
    assert text.isascii()
    assert text.isprintable()
    assert words.read(text) == value
    assert words.shown(value).isprintable()


entries = st.lists(
    st.builds(
        index.Entry,
        path=st.binary(min_size=1, max_size=5000).filter(lambda path: b"\0" not in path),
        mode=st.sampled_from(sorted(index.MODES)),
        oid=st.binary(min_size=20, max_size=20).map(bytes.hex),
        assume_unchanged=st.booleans(),
        skip_worktree=st.booleans(),
        intent_to_add=st.booleans(),
        size=st.integers(0, 2**32 - 1),
    ),
    unique_by=lambda entry: entry.path,
    max_size=5,
).map(lambda found: sorted(found, key=lambda entry: entry.path))


@given(entries)
def test_an_index_comes_back(found):
    data = index.render(found, "sha1", lambda _: None)
    assert index.parse(data, "sha1") == (found, False)
    assert hashlib.sha1(data[:-20]).digest() == data[-20:]
    tops = [entry.path.split(b"/")[0] for entry in found]
    if len(set(tops)) == len(tops):  # none is a folder and a file
        assert index.decode(b"".join(index.encode(found)), "sha1") == found


def test_the_index_remembers_a_file_as_git_does(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    seen = os.stat(tmp_path / "x")  # noqa: PTH116
    entry = index.Entry(b"x", index.FILE, "0" * 40)
    data = index.render([entry], "sha1", lambda _: seen)
    assert index.stats(data, "sha1") == {b"x": (seen.st_mtime_ns, 3)}


def test_a_status_as_if_what_stays_had_never_been_there():
    text = b"# branch.head x\x00? a\x00? b/c\x00? d\x002 R. N... 1 2 3 4 5 R100 new\x00? a\x001 .M S..U 1 2 3 4 5 sub\x00"
    masked = mask(text, frozenset({b"a", b"b/"}), {b"sub": Status(b"", has_untracked=False, masked=True)})
    assert masked.text == b"# branch.head x\x00? d\x002 R. N... 1 2 3 4 5 R100 new\x00? a\x00"
    assert (masked.has_untracked, masked.masked) == (True, True)
    kept = mask(text, frozenset(), {b"sub": Status(b"? x\0", has_untracked=True, masked=True)})
    assert kept.text == text

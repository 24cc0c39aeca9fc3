"""Named nasty workspaces, packed and unpacked: they come out as they went in."""

import os
from uuid import UUID

import pytest
from handoff_moves import begin, code_of, moves
from handoff_trees import Ground, files, ignored, words

from ff_core.git.exact import write
from ff_core.git.exact.run import find
from ff_core.handoff.orders import Survey
from ff_core.handoff.pack import survey

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
SESSION = UUID("01890000-0000-7000-8000-000000000001")
PROVIDER = "3f2b8c1e-0000-4000-8000-00000000abcd"
TIMEOUT_S = 60.0


@pytest.fixture
def ground(tmp_path, monkeypatch) -> Ground:
    made = Ground(tmp_path / "ground")
    monkeypatch.setenv("HOME", str(made.home))
    return made


def test_staged_and_changed_again_half_a_rename_and_deletions(ground):
    begin(ground)
    ws = ground.ws
    (ws / "a").write_text("staged\n")
    ground.git("add", "a")
    (ws / "a").write_text("changed again\n")
    ground.git("mv", "d/b", "moved")
    ground.git("reset", "-q", "moved")
    (ws / "gone").write_text("x")
    ground.git("add", "gone")
    (ws / "gone").unlink()
    (ws / "d" / "empty" / "below").mkdir(parents=True)
    (ws / "late").write_text("later")
    ground.git("add", "-N", "late")
    os.symlink(b"\xff\n", os.fsencode(ws) + b"/\xfe\n")  # noqa: PTH211  (bytes)
    there = moves(ground)
    assert ground.git("show", ":gone", cwd=there) == b"x"


def test_files_that_git_was_told_not_to_look_at(ground):
    begin(ground)
    for name in ("skipped", "skipped changed", "skipped gone", "assumed", "assumed changed", "assumed gone"):
        (ground.ws / name).write_text("x")
        ground.git("add", name)
        ground.git("update-index", "--skip-worktree" if name.startswith("skipped") else "--assume-unchanged", name)
    ground.git("commit", "-q", "-m", "more")
    for word in ("skipped", "assumed"):
        (ground.ws / f"{word} changed").write_text("y")
        (ground.ws / f"{word} gone").unlink()
    there = moves(ground)
    ground.git("update-index", "--no-assume-unchanged", "assumed", "assumed changed", "assumed gone", cwd=there)
    assert ground.git("status", "--porcelain", cwd=there) == b' M "assumed changed"\n D "assumed gone"\n'


def test_the_stash_with_its_index_untracked_files_and_times(ground):
    begin(ground)
    for number in range(3):
        (ground.ws / "a").write_text(f"staged {number}\n")
        ground.git("add", "a")
        (ground.ws / "a").write_text(f"changed {number}\n")
        (ground.ws / f"new{number}").write_text("untracked")
        ground.git("stash", "push", "-q", "-u", "-m", f"number {number} \xfc", check=True)
    ground.git("stash", "drop", "-q", "stash@{1}")
    there = moves(ground)
    expected = ground.git("log", "-g", "--format=%H %gd %gs %ci", "--date=iso", "refs/stash")
    assert ground.git("log", "-g", "--format=%H %gd %gs %ci", "--date=iso", "refs/stash", cwd=there) == expected
    ground.git("stash", "pop", "-q", "--index", cwd=there)
    assert ground.git("status", "--porcelain", cwd=there) == b"MM a\n?? new2\n"


def test_a_submodule_with_its_own_commits_and_changes(ground):
    begin(ground)
    inner = Ground(ground.root / "inner")
    begin(inner)
    deep = Ground(ground.root / "deep")
    begin(deep)
    inner.git("submodule", "--quiet", "add", str(deep.remote), "below/deep")
    inner.git("commit", "-q", "-m", "with a submodule")
    inner.git("push", "-q", "origin", "main")
    ground.git("submodule", "--quiet", "add", str(inner.remote), "lib/inner")
    ground.git("submodule", "--quiet", "add", "--name", "other/name", str(deep.remote), "not here")
    ground.git("commit", "-q", "-m", "submodules")
    ground.git("submodule", "--quiet", "update", "--init", "--recursive", "lib/inner")
    ground.git("submodule", "--quiet", "deinit", "--force", "not here")
    sub = ground.ws / "lib" / "inner"
    ground.git("checkout", "-q", "-b", "mine", cwd=sub)
    (sub / "a").write_text("committed in it\n")
    ground.git("commit", "-q", "-am", "not pushed", cwd=sub)
    (sub / "a").write_text("dirty\n")
    (sub / "new").write_text("untracked\n")
    ground.git("stash", "push", "-q", cwd=sub)
    (sub / "a").write_text("dirty again\n")
    (sub / "below" / "deep" / "d" / "b").unlink()
    (sub / "server.pem").write_text("secret")
    there = moves(ground, credentials=True)
    assert ground.git("branch", "-a", cwd=there / "lib" / "inner") == ground.git("branch", "-a", cwd=sub)
    assert (there / "lib" / "inner" / ".git").is_file()
    assert (there / ".git" / "modules" / "lib" / "inner" / "modules" / "below" / "deep").is_dir()
    assert ground.git("stash", "list", cwd=there / "lib" / "inner") == ground.git("stash", "list", cwd=sub)
    ground.git("submodule", "--quiet", "update", "--init", "--force", cwd=there)
    assert (there / "not here" / "d" / "b").exists()


def test_a_submodule_in_which_only_what_stays_is_new(ground):
    begin(ground)
    inner = Ground(ground.root / "inner")
    begin(inner)
    inner.git("push", "-q", "origin", "main")
    ground.git("submodule", "--quiet", "add", str(inner.remote), "inner")
    ground.git("commit", "-q", "-m", "a submodule")
    (ground.ws / "inner" / ".env.local").write_text("SECRET=1")
    assert b"S..U" in ground.git("status", "--porcelain=v2")
    packed = ground.pack(whole=True)
    assert [each.path for each in packed.contents.left_behind] == ["inner/.env.local"]
    ground.unpack(packed, "whole")
    assert ground.git("status", "--porcelain=v2", cwd=ground.unpacked("whole")) == b""


def test_a_repository_in_the_index_that_is_no_submodule(ground):
    begin(ground)
    ground.git("init", "-q", "-b", "main", "nested")
    ground.git("commit", "-q", "--allow-empty", "-m", "inside", cwd=ground.ws / "nested")
    ground.git("add", "nested")
    (ground.ws / "nested" / "x").write_text("untracked in it")
    ground.git("init", "-q", "-b", "main", "only untracked")
    (ground.ws / "only untracked" / "x").write_text("x")
    there = moves(ground)
    assert (there / "nested" / ".git" / "HEAD").is_file()
    assert (there / "only untracked" / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"


def test_a_linked_worktree(ground):
    begin(ground)
    inner = Ground(ground.root / "inner")
    begin(inner)
    inner.git("push", "-q", "origin", "main")
    worktree = ground.root / "wt"
    ground.git("worktree", "add", "-q", "-b", "side", str(worktree))
    ground.git("branch", "-q", "--set-upstream-to=main", "side")
    ground.git("submodule", "--quiet", "add", str(inner.remote), "inner", cwd=worktree)
    ground.git("sparse-checkout", "set", "--no-cone", "/*", "!/d/", cwd=worktree)
    (worktree / "a").write_text("side\n")
    (worktree / "inner" / "a").write_text("side\n")
    ground.git("stash", "push", "-q", cwd=ground.ws, check=False)
    ground.ws = worktree
    there = moves(ground)
    assert (there / ".git" / "modules" / "inner").is_dir()
    assert not (there / "d").exists()
    assert (there / ".git").is_dir()


def test_a_large_file_pointer_without_its_program(ground):
    begin(ground)
    (ground.ws / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (ground.ws / "x.bin").write_bytes(LFS)
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "a pointer")
    moves(ground)
    ground.git("config", "filter.lfs.clean", "cat")  # it is installed here, but the file is still the pointer
    ground.git("config", "filter.lfs.required", "true")
    ground.pack()
    (ground.ws / "x.bin").write_bytes(b"what the pointer stands for" * 100)
    assert code_of(ground) == "filter_driver_missing"


def test_line_ends_and_filters_are_not_applied_on_the_way(ground):
    (ground.ws / ".gitattributes").write_text("*.txt text\n*.id ident\n*.u working-tree-encoding=UTF-16LE\n")
    ground.git("config", "core.autocrlf", "true")
    (ground.ws / "unix.txt").write_bytes(b"a\nb\n")
    (ground.ws / "dos.txt").write_bytes(b"a\r\nb\r\n")
    (ground.ws / "x.id").write_bytes(b"$Id$\n")
    (ground.ws / "x.u").write_bytes("text\r\n".encode("utf-16le"))
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "first")
    ground.git("push", "-q", "-u", "origin", "main")
    (ground.ws / "x.id").unlink()
    ground.git("checkout", "-q", "x.id")  # with the name of the blob in it
    assert b"$Id: " in (ground.ws / "x.id").read_bytes()
    moves(ground)


def test_a_file_that_git_would_store_otherwise_today_is_as_clean_as_it_was(ground):
    (ground.ws / "dos").write_bytes(b"a\r\n")
    os.utime(ground.ws / "dos", (1_000_000_000, 1_000_000_000))
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "as it is")
    (ground.ws / ".gitattributes").write_text("* text\n")
    assert b"dos" not in ground.git("status", "--porcelain")
    there = moves(ground, both=False)
    repository = find(there)
    os.utime(there / "dos", (2_000_000_000, 2_000_000_000))
    assert b"dos" in ground.git("--no-optional-locks", "status", "--porcelain", cwd=there)
    os.utime(there / "dos", (1_000_000_000, 1_000_000_000))
    (there / "dos").rename(there / "moved away")  # another ctime: git would read it
    (there / "moved away").rename(there / "dos")
    write.restat(repository)
    assert b"dos" not in ground.git("status", "--porcelain", cwd=there)


def test_a_file_of_another_size_is_as_changed_as_it_was(ground):
    ground.git("config", "core.autocrlf", "true")
    for name in ("dos", "touched"):
        (ground.ws / name).write_bytes(b"a\n")
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "first")
    (ground.ws / "dos").write_bytes(b"a\r\n")  # would be stored the same
    os.utime(ground.ws / "touched", (1, 1))
    assert ground.git("--no-optional-locks", "status", "--porcelain") == b" M dos\n"
    moves(ground, both=False)


def test_a_sparse_checkout(ground):
    begin(ground)
    for name in ("x/1", "x/2", "y/1"):
        (ground.ws / name).parent.mkdir(exist_ok=True)
        (ground.ws / name).write_text(name)
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "more")
    ground.git("sparse-checkout", "set", "--cone", "--sparse-index", "x")
    (ground.ws / "x" / "1").write_text("changed")
    there = moves(ground)
    assert not (there / "y").exists()
    assert ground.git("sparse-checkout", "list", cwd=there) == b"x\n"
    ground.git("sparse-checkout", "disable", cwd=there)
    assert (there / "y" / "1").read_text() == "y/1"


def test_an_empty_repository(tmp_path, monkeypatch):
    ground = Ground(tmp_path / "ground", remote=False)
    monkeypatch.setenv("HOME", str(ground.home))
    there = moves(ground, both=False)
    assert ground.git("symbolic-ref", "HEAD", cwd=there) == b"refs/heads/main\n"
    (ground.ws / "staged").write_text("x")
    ground.git("add", "staged")
    (ground.root / "whole").rename(ground.root / "first")
    moves(ground, both=False)


def test_a_repository_without_remote_and_with_another_hash(tmp_path, monkeypatch):
    ground = Ground(tmp_path / "ground", remote=False)
    monkeypatch.setenv("HOME", str(ground.home))
    ground.ws = ground.root / "other"
    ground.git("init", "-q", "-b", "main", "--object-format=sha256", str(ground.ws), cwd=ground.root)
    (ground.ws / "a").write_text("x")
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "first")
    (ground.ws / "a").write_text("y")
    ground.git("stash", "push", "-q")
    (ground.ws / "a").write_text("z")
    assert ground.pack(whole=True).fingerprint.repositories[0].object_format == "sha256"
    moves(ground, both=False)


def test_a_detached_head_tags_and_all_branches(ground):
    begin(ground)
    ground.git("tag", "old", "origin/main")
    ground.git("tag", "-m", "annotated", "new")
    ground.git("branch", "other", "HEAD~1")
    ground.git("branch", "-q", "--set-upstream-to=origin/main", "other")
    ground.git("checkout", "-q", "--detach")
    ground.git("commit", "-q", "--allow-empty", "-m", "on nothing")
    packed = ground.pack(have=ground.have())
    assert packed.fingerprint.repositories[0].branch is None
    ground.unpack(packed, "branch", base=ground.clone("base1"))
    refs = ground.git("for-each-ref", "--format=%(refname)", cwd=ground.unpacked("branch")).decode().split()
    assert refs == ["refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/tags/new"]
    packed = ground.pack(have=ground.have(), refs="all")
    ground.unpack(packed, "all", base=ground.clone("base2"))
    wanted = ["--format=%(refname) %(objectname) %(upstream)", "refs/heads", "refs/tags"]
    assert ground.git("for-each-ref", *wanted, cwd=ground.unpacked("all")) == ground.git("for-each-ref", *wanted)


def test_a_shallow_clone(ground):
    begin(ground)
    ground.git("push", "-q", "origin", "main")
    ground.git("clone", "-q", "--depth=1", f"file://{ground.remote}", str(ground.root / "shallow"), cwd=ground.root)
    ground.ws = ground.root / "shallow"
    (ground.ws / "a").write_text("three\n")
    ground.git("commit", "-q", "-am", "third")
    there = moves(ground)
    assert ground.git("log", "--format=%s", cwd=there) == b"third\nsecond\n"


def test_a_partial_clone_sends_what_is_new(ground):
    begin(ground)
    ground.git("push", "-q", "origin", "main")
    ground.git("config", "uploadpack.allowFilter", "true", cwd=ground.remote)
    ground.git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=ground.remote)
    partial = ground.root / "partial"
    ground.git("clone", "-q", "--filter=blob:none", f"file://{ground.remote}", str(partial), cwd=ground.root)
    ground.ws = partial
    (partial / "a").write_text("three\n")
    ground.git("commit", "-q", "-am", "third")
    (partial / "a").write_text("four\n")
    before = words(ground, partial)
    packed = ground.pack(have=ground.have())
    ground.unpack(packed, "delta", base=ground.clone("base"))
    assert words(ground, ground.unpacked("delta")) == before
    assert code_of(ground, whole=True) == "history_incomplete"


def test_what_is_ignored_included_and_secret(ground):
    begin(ground)
    ws = ground.ws
    (ws / ".gitignore").write_text(".env*\nbuild/\ncache/\n*.log\n")
    (ws / ".worktreeinclude").write_text(".env.development\nbuild/keep/\n")
    for name in (".env", ".env.development", ".env.example", "build/keep/x", "build/drop", "cache/huge", "a.log", "deploy.pem"):
        (ws / name).parent.mkdir(parents=True, exist_ok=True)
        (ws / name).write_text(name)
    os.mkfifo(ws / "pipe")
    (ws / "note.tmp.123.1700000000000").write_text("half")
    seen = survey(Survey(repository=ws, config_dir=ground.home, have=ground.have()), ignored)
    assert seen.credentials == (".env.development", "deploy.pem")
    left = {each.path: each.reason for each in seen.contents.left_behind}
    assert left == {
        "deploy.pem": "credential",
        ".env.development": "credential",
        "pipe": "special",
        "note.tmp.123.1700000000000": "temporary",
        ".env": "ignored",
        ".env.example": "ignored",
        "build/": "ignored",
        "cache/": "ignored",
        "a.log": "ignored",
    }
    assert seen.contents.included == ("build/keep/x",)
    packed = ground.pack(whole=True)
    assert packed.contents.left_behind == seen.contents.left_behind
    ground.unpack(packed, "plain")
    found = {path for path in files(ground.unpacked("plain")) if not path.startswith(b"d/")}
    assert found == {b".gitignore", b".worktreeinclude", b"a", b"build/keep/x"}
    said = ground.pack(whole=True, include=("/.env", "*.pem", "*.log"))
    ground.unpack(said, "said")
    assert {b".env", b"deploy.pem", b"a.log"} <= files(ground.unpacked("said")).keys()
    assert b".env.development" not in files(ground.unpacked("said"))
    yes = ground.pack(whole=True, credentials=True)
    ground.unpack(yes, "yes")
    assert {b".env.development", b"deploy.pem"} <= files(ground.unpacked("yes")).keys()
    assert b".env" not in files(ground.unpacked("yes"))


def test_worktrees_inside_stay(ground):
    begin(ground)
    ground.git("worktree", "add", "-q", "--detach", "inside/wt")
    packed = ground.pack(whole=True)
    assert [(each.path, each.reason) for each in packed.contents.left_behind] == [("inside/wt/", "worktree")]
    ground.unpack(packed, "whole")


def test_settings_travel_without_secrets_and_programs(ground):
    begin(ground)
    for name, value in {
        "user.name": 'Ünï "quoted" \\ #;',
        "remote.second.url": "https://me:secret@example.com/x.git",
        "remote.third.url": "ssh://git:secret@example.com/x.git",
        "remote.evil.url": "ext::sh -c true",
        "core.editor": "vim",
        "core.hooksPath": "/hooks",
        "branch.main.description": "no",
        "submodule.x.update": "!true",
        "core.sshCommand": "false",
    }.items():
        ground.git("config", name, value)
    ground.git("config", "--global", "status.renames", "false")
    (ground.home / ".config" / "git" / "ignore").write_text("*.mine\n")
    (ground.home / ".config" / "git" / "attributes").write_text("*.crlf text eol=crlf\n")
    (ground.ws / "x.mine").write_text("x")
    (ground.ws / "x.crlf").write_bytes(b"x\r\n")
    ground.git("add", "x.crlf")
    packed = ground.pack(whole=True)
    data = (ground.root / "bundle").read_bytes()
    assert b"secret" not in data
    nobody = ground.root / "nobody"
    (nobody / ".config" / "git").mkdir(parents=True)
    (nobody / ".config" / "git" / "ignore").write_text("*\n")
    (nobody / ".gitconfig").write_text("[status]\n\tshowStash = true\n[core]\n\tautocrlf = true\n")
    os.environ["HOME"] = str(nobody)  # put back by the fixture
    ground.unpack(packed, "whole")
    there = ground.unpacked("whole")
    text = (there / ".git" / "config").read_text().lower()
    assert not [word for word in ("secret", "ext::", "vim", "hooks", "description", "!true", "sshcommand") if word in text]
    ground.git("config", "core.filemode", "false", cwd=there)  # it can be changed: it is there once
    assert ground.git("config", "user.name", cwd=there).decode() == 'Ünï "quoted" \\ #;\n'
    assert ground.git("config", "remote.second.url", cwd=there) == b"https://example.com/x.git\n"
    assert ground.git("config", "remote.third.url", cwd=there) == b"ssh://git@example.com/x.git\n"

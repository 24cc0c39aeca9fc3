"""What was unpacked comes into a worktree of the user's project: exactly, over nothing else, finished however often killed."""

# Paths are bytes here.
# ruff: noqa: PTH114, PTH115, PTH116, PTH118, PTH208

import os
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from ff_core.contract.handoff import Fingerprint
from ff_core.git.exact.words import shown
from ff_core.handoff.errors import LandingPlaceTaken, WorktreeChanged
from ff_core.handoff.landing import PLACES, fingerprint_of, land, obstacles
from ff_core.handoff.orders import JOURNAL, RECORDS, Land, Landed, Look, Obstacles, Pack, Survey, Unpack
from ff_core.handoff.pack import pack
from ff_core.handoff.unpack import unpack

PURPOSE, WORKSPACE = str(UUID(int=5)), str(UUID(int=7))
NAME = b"na\xffme\n.txt"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C",
    **{f"GIT_{who}_{what}": f"{what}@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
QUIET = lambda _: None  # noqa: E731


def git(folder: Path, *words: str | bytes, check: bool = True) -> bytes:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, check=False
    )
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout


def seen(folder: Path, *, hidden: tuple[str, ...] = ()) -> dict[str, object]:
    """The working tree as a person sees it; ``hidden`` folders are not looked into."""
    files = {}
    for where, folders, names in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b".git" and os.fsdecode(name) not in hidden]
        for name in [*names, *(each for each in folders if os.path.islink(os.path.join(where, each)))]:
            path = os.path.join(where, name)
            if name == b".git":
                continue
            content = os.readlink(path) if os.path.islink(path) else Path(os.fsdecode(path)).read_bytes()
            executable = not os.path.islink(path) and bool(os.stat(path).st_mode & 0o100)
            files[os.path.relpath(path, os.fsencode(folder))] = (content, executable)
    status = git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z")
    return {"files": files, "status": status, "stash": git(folder, "stash", "list"), "index": git(folder, "ls-files", "-s", "-z")}


@dataclass
class Scene:
    """A desktop with a project and a worktree of it, and a cloud with a copy."""

    root: Path
    arrived: Fingerprint | None = None
    sent: Fingerprint | None = None
    include: tuple[str, ...] = ()
    saved: list[Path] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def project(self) -> Path:
        return self.home / "project"

    @property
    def worktree(self) -> Path:
        return self.home / "worktree"

    @property
    def cloud(self) -> Path:
        return self.root / "cloud" / "repository"

    @property
    def staging(self) -> Path:
        return self.root / "staging" / "repository"

    def sent_as(self) -> Survey:
        return Survey(repository=self.worktree, config_dir=self.root, include=self.include, refs="branch")

    def send(self) -> None:
        """To the cloud: what is there afterwards is what was here."""
        self.sent = self._move(self.worktree, self.root / "cloud", "branch", None)

    def pull(self) -> None:
        """As far as the staging folder."""
        shutil.rmtree(self.root / "staging", ignore_errors=True)
        self.arrived = self._move(self.cloud, self.root / "staging", "all", self.project)

    def _move(self, source: Path, into: Path, refs: str, base: Path | None) -> Fingerprint:
        spool = self.root / "spool"
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir()
        (spool / RECORDS).write_text("{}")
        (spool / JOURNAL).write_text("")
        have = () if base is None else tuple(git(base, "rev-list", "--all").decode().split())
        bundle = self.root / "bundle"
        rules = {"include": self.include, "refs": refs, "have": have, "whole": base is None}
        packed = pack(Pack(repository=source, config_dir=self.root, spool=spool, bundle=bundle, **rules), QUIET)
        return unpack(Unpack(bundle=bundle, size=packed.size, sha256=packed.sha256, into=into, base=base), QUIET).fingerprint

    def order(self, **changes: object) -> Land:
        values = {
            "purpose": PURPOSE,
            "staging": self.staging,
            "project": self.project,
            "worktree": self.worktree,
            "fresh": False,
            "aside": WORKSPACE,
            "sent": self.sent,
            "sent_as": self.sent_as(),
            "arrived": self.arrived,
        } | changes
        return Land(**values)

    def beside(self, **changes: object) -> Land:
        return self.order(**({"worktree": self.home / "worktree-2", "fresh": True, "branch": "work-cloud"} | changes))

    def save(self) -> None:
        shutil.copytree(self.home, self.root / "saved", symlinks=True)

    def again(self) -> None:
        """Home as it was saved."""
        shutil.rmtree(self.home)
        shutil.copytree(self.root / "saved", self.home, symlinks=True)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A worktree with a bit of everything was sent, work went on in the cloud, and all of it lies in the staging folder."""
    scene = Scene(tmp_path_factory.mktemp("landing"), include=("/.env",))
    scene.home.mkdir()
    library, remote = scene.root / "library", scene.root / "remote.git"
    for bare in (library, remote):
        git(scene.root, "init", "-q", "--bare", "-b", "main", str(bare))
    first = scene.root / "first"
    git(scene.root, "clone", "-q", str(library), str(first))
    (first / "lib.c").write_text("int lib;\n")
    git(first, "add", ".")
    git(first, "commit", "-qm", "library")
    git(first, "push", "-q", "origin", "HEAD:main")
    git(scene.home, "clone", "-q", str(remote), "project")
    project = scene.project
    for name, text in {"a.txt": "a\n", "b.txt": "b\n", "c.txt": "c\n", "tool.sh": "#!/bin/sh\n", "gone.txt": "g\n"}.items():
        (project / name).write_text(text)
    (project / ".gitignore").write_text("node_modules/\n.env\nbuild/\n")
    git(project, "submodule", "--quiet", "add", "-b", "main", str(library), "vendor/lib")
    git(project, "add", ".")
    git(project, "commit", "-qm", "base")
    git(project, "push", "-q", "origin", "HEAD:main")
    worktree = scene.worktree
    git(project, "worktree", "add", "-q", "-b", "work", str(worktree), "main")
    git(worktree, "push", "-q", "--set-upstream", "origin", "work")
    git(worktree, "submodule", "--quiet", "update", "--init")
    (worktree / "a.txt").write_text("stashed\n")
    git(worktree, "stash", "push", "-q", "-m", "of home")
    (worktree / "a.txt").write_text("committed\n")
    git(worktree, "commit", "-qam", "unpushed")
    (worktree / "b.txt").write_text("staged\n")
    git(worktree, "add", "b.txt")
    (worktree / "b.txt").write_text("staged and changed\n")
    (worktree / "tool.sh").chmod(0o755)
    (worktree / "gone.txt").unlink()
    (worktree / "link").symlink_to("a.txt")
    Path(os.fsdecode(os.fsencode(worktree) + b"/" + NAME)).write_bytes(b"\0\xff")
    (worktree / "folder" / "deep").mkdir(parents=True)
    (worktree / "untracked.txt").write_text("u\n")
    (worktree / ".env").write_text("SECRET=1\n")
    (worktree / "node_modules" / "left").mkdir(parents=True)
    (worktree / "node_modules" / "left" / "pad.js").write_text("1\n")
    (worktree / "vendor/lib/lib.c").write_text("int lib = 1;\n")
    scene.send()
    cloud = scene.cloud
    assert seen(cloud)["files"] == seen(worktree, hidden=("node_modules",))["files"]
    # Work in the cloud.
    (cloud / "cloud.txt").write_text("new\n")
    (cloud / "c.txt").write_text("of the cloud\n")
    git(cloud, "add", "cloud.txt", "c.txt")
    git(cloud, "commit", "-qm", "in the cloud")
    git(cloud, "branch", "side")
    git(cloud, "tag", "-m", "tagged", "v1")
    (cloud / "untracked.txt").unlink()
    (cloud / "link").unlink()
    (cloud / "link").mkdir()
    (cloud / "link" / "inside.txt").write_text("a folder now\n")
    git(cloud, "rm", "-q", "--cached", "a.txt")
    (cloud / "b.txt").write_text("again\n")
    git(cloud, "stash", "drop", "-q")
    (cloud / "c.txt").write_text("stashed there\n")
    git(cloud, "stash", "push", "-q", "-m", "of the cloud", "--", "c.txt")
    git(cloud / "vendor/lib", "commit", "-qam", "in the library")
    scene.pull()
    scene.save()
    return scene


@pytest.fixture
def scene(nasty):
    yield nasty
    nasty.again()
    nasty.include = ("/.env",)


def test_it_lands_where_it_was_sent_from(scene):
    assert obstacles(Obstacles(staging=scene.staging, sent_as=scene.sent_as())).paths == ()
    landed = land(scene.order(), QUIET)
    assert (landed.differences, landed.aside, landed.worktree) == ((), (), str(scene.worktree))
    here = seen(scene.worktree, hidden=("node_modules",))
    assert here == seen(scene.cloud)
    assert b"of the cloud" in here["stash"]
    assert b"of home" not in here["stash"]
    assert (scene.worktree / "node_modules/left/pad.js").read_text() == "1\n"
    assert git(scene.project, "rev-parse", "side", "v1^{commit}") == git(scene.cloud, "rev-parse", "side", "v1^{commit}")
    library = scene.worktree / "vendor/lib"
    assert git(library, "rev-parse", "HEAD") == git(scene.cloud / "vendor/lib", "rev-parse", "HEAD")
    git(scene.project, "fsck", "--strict")
    assert not list(scene.worktree.rglob(".ff-*"))


def test_changes_of_the_user_are_kept_and_it_lands_beside(scene):
    (scene.worktree / "b.txt").write_text("edited here meanwhile\n")
    before = seen(scene.worktree)
    with pytest.raises(WorktreeChanged, match="changed since it was sent"):
        land(scene.order(), QUIET)
    assert seen(scene.worktree) == before
    landed = land(scene.beside(), QUIET)
    assert landed.differences == ()
    there, beside = seen(scene.cloud), seen(scene.home / "worktree-2")
    assert beside["files"] == there["files"]
    assert beside["status"] == there["status"].replace(b"branch.head work", b"branch.head work-cloud")
    after = seen(scene.worktree)
    assert (after["files"], after["index"]) == (before["files"], before["index"])
    assert git(scene.worktree, "merge-base", "work", "work-cloud")


class Died(BaseException):
    pass


def dying(place: str):
    def crash(where: str) -> None:
        if where == place:
            raise Died

    return crash


def dying_in_the_tree(at: int):
    told = []

    def progress(line) -> None:
        told.append(line)
        if line.step == "landing" and len(told) >= at:
            raise Died

    return progress


@pytest.mark.parametrize("where", ["original", "beside"])
def test_killed_everywhere_it_finishes(scene, where):
    order = scene.order() if where == "original" else scene.beside()
    for place in PLACES:
        with pytest.raises(Died):
            land(order, QUIET, dying(place))
    landed = land(order, QUIET)
    assert landed.differences == ()
    here, there = seen(Path(order.worktree), hidden=("node_modules",)), seen(scene.cloud)
    assert (here["files"], here["index"], here["stash"]) == (there["files"], there["index"], there["stash"])
    assert git(Path(order.worktree), "rev-parse", "HEAD") == git(scene.cloud, "rev-parse", "HEAD")


def test_one_that_goes_on_after_its_server_died_is_waited_for(scene):
    told: list[tuple[str, str]] = []
    others: list[Landed] = []
    other = threading.Thread(
        target=lambda: others.append(land(scene.order(), QUIET, lambda place: told.append(("second", place))))
    )

    def crash(place: str) -> None:
        told.append(("first", place))
        if place == PLACES[0]:
            other.start()

    first = land(scene.order(), QUIET, crash)
    other.join()
    assert [who for who, _ in told] == ["first"] * len(PLACES) + ["second"] * (len(told) - len(PLACES))
    assert [first.differences, *(each.differences for each in others)] == [(), ()]
    assert seen(scene.worktree, hidden=("node_modules",)) == seen(scene.cloud)


@pytest.mark.parametrize("at", [3, 8])
def test_edits_between_a_death_and_the_next_try_are_not_overwritten(scene, at):
    with pytest.raises(Died):
        land(scene.order(), dying_in_the_tree(at))
    late = scene.worktree / "c.txt"
    late.write_text("edited in the meantime\n")
    with pytest.raises(WorktreeChanged, match=r"c\.txt"):
        land(scene.order(), QUIET)
    assert late.read_text() == "edited in the meantime\n"
    assert land(scene.beside(), QUIET).differences == ()
    assert seen(scene.home / "worktree-2")["files"] == seen(scene.cloud)["files"]


def test_stash_entries_made_here_meanwhile_stay(scene):
    (scene.project / "a.txt").write_text("of the main worktree\n")
    git(scene.project, "stash", "push", "-q", "-m", "made meanwhile")
    assert land(scene.order(), QUIET).differences == ()
    stash = git(scene.project, "stash", "list").decode()
    assert [words in stash for words in ("of home", "made meanwhile", "of the cloud")] == [True] * 3
    assert git(scene.project, "stash", "show", "-p", "stash@{0}").count(b"+stashed there") == 1
    git(scene.project, "stash", "pop", "-q", "stash@{1}")


def test_branches_that_are_others_here_are_kept_beside(scene):
    git(scene.project, "branch", "side", "main")
    landed = land(scene.order(), QUIET)
    assert landed.differences == ()
    kept = f"refs/ff/{WORKSPACE}/heads/side"
    assert landed.aside == (f"refs/heads/side is {kept}",)
    assert git(scene.project, "rev-parse", kept) == git(scene.cloud, "rev-parse", "side")
    assert git(scene.project, "rev-parse", "side") == git(scene.project, "rev-parse", "main")


def test_ignored_files_are_never_overwritten(scene):
    there = scene.staging / "build"
    (there / "out").mkdir(parents=True)
    (there / "out" / "made.txt").write_text("tracked in the cloud\n")
    git(scene.staging, "add", "-f", "build/out/made.txt")
    here = scene.worktree / "build" / "out" / "made.txt"
    here.parent.mkdir(parents=True)
    asked = Obstacles(staging=scene.staging, sent_as=scene.sent_as())
    try:
        here.write_text("made here\n")
        assert obstacles(asked).paths == ("build/out/made.txt",)
        with pytest.raises(WorktreeChanged):
            land(scene.order(), QUIET)
        assert here.read_text() == "made here\n"
        here.write_text("tracked in the cloud\n")
        assert obstacles(asked).paths == ()
        shutil.rmtree(scene.worktree / "build")
        (scene.project / ".git" / "info" / "exclude").write_text("/build\n")
        (scene.worktree / "build").symlink_to(scene.root)
        assert obstacles(asked).paths == ("build",)
        with pytest.raises(WorktreeChanged):
            land(scene.order(), QUIET)
        assert not (scene.root / "out").exists()
    finally:
        git(scene.staging, "rm", "-qf", "build/out/made.txt")


def test_a_desktop_that_never_had_it_gets_a_worktree_of_its_own(scene):
    git(scene.project, "worktree", "remove", "--force", str(scene.worktree))
    git(scene.project, "branch", "-qD", "work")
    git(scene.project, "stash", "clear")
    landed = land(scene.beside(branch=None, sent=None, sent_as=None), QUIET)
    assert landed.differences == ()
    assert seen(scene.home / "worktree-2") == seen(scene.cloud)


def test_a_folder_that_is_taken_is_left_alone(scene):
    (scene.home / "worktree-2").mkdir()
    (scene.home / "worktree-2" / "mine.txt").write_text("mine\n")
    with pytest.raises(LandingPlaceTaken):
        land(scene.beside(), QUIET)
    assert os.listdir(scene.home / "worktree-2") == ["mine.txt"]
    assert git(scene.project, "worktree", "list").count(b"\n") == 2


def test_a_worktree_whose_making_was_interrupted_is_made_anew(scene):
    git(scene.project, "worktree", "add", "-q", "--no-checkout", "--detach", str(scene.home / "worktree-2"), "main")
    assert land(scene.beside(), QUIET).differences == ()
    assert seen(scene.home / "worktree-2")["files"] == seen(scene.cloud)["files"]
    assert git(scene.project, "worktree", "list").count(b"\n") == 3


@pytest.fixture
def small(tmp_path):
    """A project with one commit; ``begin`` makes a worktree of it."""
    scene = Scene(tmp_path)
    scene.home.mkdir()
    git(scene.home, "init", "-q", "-b", "main", "project")
    (scene.project / "a.txt").write_text("a\n")
    (scene.project / "docs").mkdir()
    (scene.project / "docs" / "d.md").write_text("d\n")
    git(scene.project, "add", ".")
    git(scene.project, "commit", "-qm", "base")
    return scene


def round_trip(scene: Scene, work, *, beside: bool = False) -> Path:
    """Send, have something done in the cloud, and land; both sides are the same then."""
    scene.send()
    work(scene.cloud)
    scene.pull()
    order = scene.beside() if beside else scene.order()
    landed = land(order, QUIET)
    assert landed.differences == ()
    here, there = seen(order.worktree), seen(scene.cloud)
    if beside:
        here.pop("status")
        there.pop("status")
    assert here == there
    return Path(landed.worktree)


def test_detached_and_sparse(small):
    git(small.project, "worktree", "add", "-q", "--detach", str(small.worktree))
    git(small.worktree, "sparse-checkout", "set", "docs")

    def work(cloud):
        (cloud / "docs" / "e.md").write_text("e\n")
        git(cloud, "add", ".")
        git(cloud, "commit", "-qm", "detached")
        git(cloud, "sparse-checkout", "disable")

    assert not (small.worktree / "docs" / "e.md").exists()
    round_trip(small, work)
    assert git(small.worktree, "config", "core.sparseCheckout").strip() == b"false"
    assert git(small.project, "config", "--get", "core.sparseCheckout", check=False).strip() in {b"", b"false"}
    assert git(small.project, "status", "--porcelain") == b""


def test_another_branch_was_checked_out_there(small):
    git(small.project, "worktree", "add", "-q", "-b", "work", str(small.worktree))

    def work(cloud):
        git(cloud, "checkout", "-q", "-b", "other")
        (cloud / "a.txt").write_text("on other\n")
        git(cloud, "commit", "-qam", "other")
        git(cloud, "branch", "-qf", "work", "HEAD")

    round_trip(small, work)
    assert git(small.worktree, "branch", "--show-current").strip() == b"other"
    assert git(small.project, "rev-parse", "work") == git(small.cloud, "rev-parse", "work")


@pytest.mark.parametrize("beside", [False, True])
def test_a_repository_without_a_commit(tmp_path, beside):
    scene = Scene(tmp_path)
    scene.home.mkdir()
    git(scene.home, "init", "-q", "-b", "main", "project")
    if beside:
        git(scene.home, "init", "-q", "-b", "work", "worktree")
    else:
        scene.project.rename(scene.worktree)
        git(scene.home, "init", "-q", "-b", "main", "project")
    (scene.worktree / "a.txt").write_text("staged before any commit\n")
    git(scene.worktree, "add", "a.txt")

    def work(cloud):
        (cloud / "b.txt").write_text("b\n")
        git(cloud, "add", "b.txt")
        if not beside:
            git(cloud, "commit", "-qm", "the first one")

    round_trip(scene, work, beside=beside)


def test_submodules_come_and_go(small):
    library = small.root / "library"
    git(small.root, "init", "-q", "-b", "main", str(library))
    (library / "lib.c").write_text("int lib;\n")
    git(library, "add", ".")
    git(library, "commit", "-qm", "library")
    git(small.project, "submodule", "--quiet", "add", str(library), "old")
    git(small.project, "commit", "-qm", "with a library")
    git(small.project, "worktree", "add", "-q", "-b", "work", str(small.worktree))
    git(small.worktree, "submodule", "--quiet", "update", "--init")

    def work(cloud):
        git(cloud, "rm", "-qf", "old")
        git(cloud, "submodule", "--quiet", "add", str(library), "sub/new")
        (cloud / "sub" / "new" / "more.c").write_text("int more;\n")

    round_trip(small, work)
    assert not (small.worktree / "old").exists()
    inside = small.worktree / "sub" / "new"
    assert git(inside, "status", "--porcelain") == b"?? more.c\n"
    assert git(inside, "rev-parse", "HEAD") == git(library, "rev-parse", "HEAD")


def test_a_look_changes_nothing_and_sees_changes(scene):
    order = Look(**(scene.sent_as().model_dump(exclude={"act"})))
    first = fingerprint_of(order, QUIET).fingerprint
    assert first.repositories == scene.sent.repositories
    (scene.worktree / "untracked.txt").write_text("changed\n")
    assert fingerprint_of(order, QUIET).fingerprint.repositories[0].tree != first.repositories[0].tree
    assert shown(NAME).startswith("na")

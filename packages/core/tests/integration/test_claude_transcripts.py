"""Transcripts on a real disk: found, moved from host to host and home again, whatever dies meanwhile."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from ff_core.claude import transcripts
from ff_core.claude.normal_form import WORD
from ff_core.claude.transcripts import (
    TranscriptsBroken,
    TranscriptsLinked,
    collect,
    find,
    print_of,
    print_of_folder,
    print_of_settled,
    settle,
    slug,
)
from ff_core.contract.handoff import ConversationPrint
from ff_core.errors import InvalidInput
from ff_core.ids import SessionId

SESSION = SessionId(UUID(int=5))
ID = "0f1e2d3c-0000-4000-8000-00000000abcd"
OTHER = "0f1e2d3c-0000-4000-8000-00000000ffff"


@dataclass
class Host:
    """A home with a checkout; both have names that need care."""

    top: Path
    cwd_name: str = "repo"
    config_name: str = ".claude"

    def __post_init__(self) -> None:
        self.cwd.mkdir(parents=True)

    @property
    def cwd(self) -> Path:
        return self.top / self.cwd_name

    @property
    def config(self) -> Path:
        return self.top / self.config_name

    @property
    def folder(self) -> Path:
        return self.config / "projects" / slug(self.cwd)

    def settle(self, source: Path) -> None:
        settle(source, self.config, self.cwd, ID)

    def packed(self, into: Path) -> Path:
        """What a bundle would hold."""
        for file in collect(self.config, ID):
            path = into / os.fsdecode(file.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(file.chunks()))
            assert path.stat().st_size == file.size
        return into

    def print(self) -> ConversationPrint:
        return print_of_settled(SESSION, self.config, ID)

    def converse(self, cloud: "Host | None" = None) -> None:
        """A conversation with a subagent and a large output, which speaks of other things as well."""
        mine = str(self.folder)
        theirs = str(cloud.folder) if cloud else "/elsewhere/.claude/projects/-repo"
        escaped = mine.replace("\\", "\\\\").replace('"', '\\"')
        lines = [
            f'{{"type":"user","cwd":"{self.cwd}","text":"do it"}}',
            f'{{"toolUseResult":{{"persistedOutputPath":"{escaped}/{ID}/tool-results/b1.txt"}}}}',
            f'{{"text":"a line\\n{escaped}/memory\\nnot {escaped}-other/x nor /backup{escaped}"}}',
            f'{{"text":"the cloud has {theirs}, and the word is {WORD.decode()}"}}',
            '{"torn',
        ]
        write(self.folder / f"{ID}.jsonl", "\n".join(lines).encode())
        write(self.folder / ID / "subagents/agent-1.jsonl", f'{{"see":"{escaped}"}}\n'.encode())
        write(self.folder / ID / "subagents/agent-1.meta.json", b'{"agentType":"general-purpose"}')
        write(self.folder / ID / "tool-results/b1.txt", f"{mine}\n".encode() + os.urandom(300_000) + f"\n{mine}".encode())
        write(self.folder / ID / os.fsdecode(b"tool-results/\xff\n.txt"), b"")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def laptop(tmp_path: Path) -> Host:
    return Host(tmp_path / "läptop \U0001f600", "mein \u2202rojekt", 'quo"te\\.claude')


@pytest.fixture
def cloud(tmp_path: Path) -> Host:
    return Host(tmp_path / "cloud")


def test_there_and_back_is_byte_for_byte_the_same(tmp_path: Path, laptop: Host, cloud: Host) -> None:
    laptop.converse(cloud)
    write(laptop.folder / f"{OTHER}.jsonl", b"another conversation")
    write(laptop.folder / "memory/MEMORY.md", b"mine")
    before = tree(laptop.config)
    sent = laptop.print()
    there = laptop.packed(tmp_path / "there")
    assert sent == print_of_folder(SESSION, there)
    assert (sent.session_id, sent.files) == (SESSION, 5)
    cloud.settle(there)
    assert cloud.print() == sent
    conversation = (cloud.folder / f"{ID}.jsonl").read_text()
    assert f'"{cloud.folder}/{ID}/tool-results/b1.txt"' in conversation
    assert f"a line\\n{cloud.folder}/memory" in conversation
    assert f'"cwd":"{laptop.cwd}"' in conversation
    assert (cloud.folder / ID / "tool-results/b1.txt").read_bytes().startswith(os.fsencode(cloud.folder) + b"\n")
    assert set(tree(cloud.folder)) == {name for name in tree(laptop.folder) if OTHER not in name and "memory" not in name}
    back = cloud.packed(tmp_path / "back")
    assert tree(back) == tree(there)
    laptop.settle(back)
    assert tree(laptop.config) == before  # it was there already, so nothing was put aside
    shutil.rmtree(laptop.folder)
    laptop.settle(back)
    home = f"projects/{laptop.folder.name}/"
    expected = {name.removeprefix(home): content for name, content in before.items() if name.startswith(home + ID)}
    assert len(expected) == 5
    assert tree(laptop.folder) == expected


def test_what_went_on_elsewhere_replaces_what_is_here_and_puts_it_aside(tmp_path: Path, laptop: Host, cloud: Host) -> None:
    laptop.converse(cloud)
    old = tree(laptop.folder)
    cloud.settle(laptop.packed(tmp_path / "there"))
    with (cloud.folder / f"{ID}.jsonl").open("ab") as file:
        file.write(b'\n{"text":"done in the cloud"}\n')
    (cloud.folder / ID / "tool-results/b1.txt").unlink()
    write(cloud.folder / ID / "tool-results/b2.txt", b"new")
    back = cloud.packed(tmp_path / "back")
    for _ in range(2):
        laptop.settle(back)
        now = tree(laptop.folder)
        assert laptop.print() == cloud.print()
        assert "done in the cloud" in now[f"{ID}.jsonl"].decode()
        aside = {name: content for name, content in now.items() if ".before-handoff" in name}
        assert {name.replace(".before-handoff", ""): content for name, content in aside.items()} == old
    beside = {name for name in now if name.startswith(f"{ID}/tool-results/")}
    assert beside == {os.fsdecode(f"{ID}/tool-results/".encode() + name) for name in (b"b2.txt", b"\xff\n.txt")}


def test_an_older_one_in_another_folder_is_put_aside(tmp_path: Path, cloud: Host) -> None:
    older = Host(cloud.top, "old-checkout")
    older.converse()
    old = tree(older.folder)
    source = tmp_path / "source"
    write(source / f"{ID}.jsonl", b"new")
    for _ in range(2):
        cloud.settle(source)
        assert find(cloud.config, ID) == cloud.folder
        assert {name.replace(".before-handoff", ""): content for name, content in tree(older.folder).items()} == old
        assert all(f"{ID}.before-handoff/" in name or name == f"{ID}.jsonl.before-handoff" for name in tree(older.folder))
        assert tree(cloud.folder) == {f"{ID}.jsonl": b"new"}


def test_the_newest_is_found(cloud: Host) -> None:
    assert find(cloud.config, ID) is None
    assert list(collect(cloud.config, ID)) == []
    for second, name in ((5, "a"), (9, "b"), (7, "c")):
        write(cloud.config / "projects" / name / f"{ID}.jsonl", name.encode())
        os.utime(cloud.config / "projects" / name / f"{ID}.jsonl", (second, second))
    write(cloud.config / "projects" / "z" / f"{OTHER}.jsonl", b"")
    (cloud.config / "projects" / "file").touch()
    assert find(cloud.config, ID) == cloud.config / "projects" / "b"
    (file,) = collect(cloud.config, ID)
    assert (file.name, b"".join(file.chunks())) == (f"{ID}.jsonl".encode(), b"b")


def test_links_and_special_files_are_left_where_they_are(tmp_path: Path, cloud: Host) -> None:
    secret = tmp_path / "secret"
    write(secret / f"{ID}.jsonl", b"secret")
    write(secret / "x/deep.txt", b"secret")
    (cloud.config / "projects").mkdir(parents=True)
    (cloud.config / "projects" / "linked").symlink_to(secret)
    (cloud.config / "projects" / "file-link").mkdir()
    (cloud.config / "projects" / "file-link" / f"{ID}.jsonl").symlink_to(secret / f"{ID}.jsonl")
    assert find(cloud.config, ID) is None
    write(cloud.folder / f"{ID}.jsonl", b"mine")
    write(cloud.folder / ID / "tool-results/mine.txt", b"mine")
    (cloud.folder / ID / "tool-results/link.txt").symlink_to(secret / "x/deep.txt")
    (cloud.folder / ID / "subagents").symlink_to(secret / "x")
    os.mkfifo(cloud.folder / ID / "pipe")
    assert [file.name.decode() for file in collect(cloud.config, ID)] == [f"{ID}.jsonl", f"{ID}/tool-results/mine.txt"]
    shutil.rmtree(cloud.folder / ID)
    (cloud.folder / ID).symlink_to(secret / "x")
    assert [file.name.decode() for file in collect(cloud.config, ID)] == [f"{ID}.jsonl"]
    source = tmp_path / "source"
    write(source / f"{ID}.jsonl", b"new")
    write(source / ID / "new.txt", b"new")
    cloud.settle(source)  # the link is put aside, not followed
    assert tree(secret) == {f"{ID}.jsonl": b"secret", "x/deep.txt": b"secret"}
    assert cloud.print() == print_of_folder(SESSION, source)


def test_a_linked_folder_of_projects_is_said_not_passed_over(tmp_path: Path, cloud: Host) -> None:
    (tmp_path / "elsewhere").mkdir()
    cloud.config.mkdir()
    (cloud.config / "projects").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "source" / f"{ID}.jsonl", b"new")
    for act in (lambda: find(cloud.config, ID), lambda: cloud.settle(tmp_path / "source")):
        with pytest.raises(TranscriptsLinked):
            act()
    assert not any((tmp_path / "elsewhere").iterdir())
    linked = Host(tmp_path / "other")
    (tmp_path / "real").mkdir()
    linked.config.symlink_to(tmp_path / "real")  # the user's own choice of a config folder
    linked.settle(tmp_path / "source")
    assert linked.print().files == 1


@pytest.mark.parametrize("name", ["", "..", "../../x", "*", ID + "/x", ID + "\n", ID[:-1], ID.replace("0", "g")])
def test_only_ids_are_looked_for(tmp_path: Path, cloud: Host, name: str) -> None:
    write(tmp_path / "source" / f"{ID}.jsonl", b"new")
    acts: list[Callable[[], object]] = [
        lambda: find(cloud.config, name),
        lambda: collect(cloud.config, name),
        lambda: settle(tmp_path / "source", cloud.config, cloud.cwd, name),
    ]
    for act in acts:
        with pytest.raises(InvalidInput):
            act()


def test_a_source_that_is_not_this_conversation_is_refused_and_none_is_nothing(tmp_path: Path, cloud: Host) -> None:
    cloud.settle(tmp_path / "not-there")
    assert not cloud.config.exists()
    assert (
        print_of_settled(SESSION, cloud.config, ID) == print_of_folder(SESSION, tmp_path / "not-there") == print_of(SESSION, [])
    )
    for name in (f"{OTHER}.jsonl", f"{ID}/x.txt", "x"):
        write(tmp_path / name.replace("/", "-") / name, b"x")
        with pytest.raises(TranscriptsBroken):
            cloud.settle(tmp_path / name.replace("/", "-"))
    write(tmp_path / "more" / f"{ID}.jsonl", b"x")
    write(tmp_path / "more" / "other.jsonl", b"x")
    with pytest.raises(TranscriptsBroken):
        cloud.settle(tmp_path / "more")
    assert not cloud.config.exists()


def test_too_many_are_refused(cloud: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.converse()
    monkeypatch.setattr(transcripts, "FILES_MAX", 3)
    with pytest.raises(TranscriptsBroken, match="too many"):
        collect(cloud.config, ID)


def test_prints_tell_names_and_contents_apart(tmp_path: Path) -> None:
    seen = set()
    for number, files in enumerate(
        ({"a": b"1", "b": b"2"}, {"a": b"2", "b": b"1"}, {"ab": b"12"}, {"a": b"1"}, {"a/b": b"2"}, {})
    ):
        for name, content in files.items():
            write(tmp_path / str(number) / name, content)
        seen.add(print_of_folder(SESSION, tmp_path / str(number)).sha256)
    assert len(seen) == 6


WATCHED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}


def dies(act: Callable[[], None], at: int) -> bool:
    """Do it in a process that dies at its ``at``-th use of the disk; false when it was done before."""
    pid = os.fork()
    if pid == 0:
        left = at

        def watch(event: str, _arguments: object) -> None:
            nonlocal left
            if event in WATCHED:
                left -= 1
                if left < 0:
                    os._exit(9)

        try:
            sys.addaudithook(watch)
            act()
        except BaseException:  # noqa: BLE001
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, 9}
    return status == 9


def test_whenever_it_dies_nothing_is_lost_and_it_can_be_done_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write(source / f"{ID}.jsonl", b"new " + WORD)
    write(source / ID / "subagents/agent.jsonl", WORD)
    write(source / ID / "b2.txt", b"new")
    wanted = print_of_folder(SESSION, source)
    deaths = 0
    for at in range(500):
        host = Host(tmp_path / str(at))
        other = Host(host.top, "other")
        for folder in (host.folder, other.folder):
            write(folder / f"{ID}.jsonl", b"old")
            write(folder / ID / "b1.txt", b"old")
        died = dies(lambda host=host: host.settle(source), at)
        for folder in (host.folder, other.folder):
            here = tree(folder)
            assert b"old" in {here.get(f"{ID}.jsonl"), here.get(f"{ID}.jsonl.before-handoff")}
            assert b"old" in {here.get(f"{ID}/b1.txt"), here.get(f"{ID}.before-handoff/b1.txt")}
        if host.folder.joinpath(f"{ID}.jsonl").exists() and b"new" in host.folder.joinpath(f"{ID}.jsonl").read_bytes():
            assert host.print() == wanted
            assert not other.folder.joinpath(f"{ID}.jsonl").exists()
        host.settle(source)
        assert host.print() == wanted
        for folder in (host.folder, other.folder):
            here = tree(folder)
            assert here[f"{ID}.jsonl.before-handoff"] == here[f"{ID}.before-handoff/b1.txt"] == b"old"
            assert not any("arriving" in name for name in here)
        if not died:
            break
        deaths += 1
        shutil.rmtree(host.top)
    assert 30 < deaths < 499


def test_it_needs_no_sdk() -> None:
    code = "import sys, ff_core.claude.transcripts; sys.exit('claude_agent_sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Mirrors with real git servers and a real PostgreSQL: who gets what, and what must go."""

import asyncio
import base64
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from ff_cloud.closing.service import key_of
from ff_cloud.closing.steps import kinds as closing_kinds
from ff_cloud.credentials.keyring import Keyring
from ff_cloud.credentials.service import Credentials
from ff_cloud.kit.origin import Origin
from ff_cloud.mirrors.folders import Folders
from ff_cloud.mirrors.policy import MirrorsUnusable, Rules
from ff_cloud.mirrors.service import NOTED_MAX, Mirrors
from ff_cloud.users import service as users
from ff_core.contract.credentials import CredentialKind
from ff_core.errors import FFError
from ff_core.git import seed
from ff_core.git.locks import lock
from ff_core.ids import UserId
from ff_core.process import run
from ff_core.testing.git_server import GitServer
from ff_core.world import SystemWorld

WORLD = SystemWorld()
HERE = Origin("192.0.2.7", "192.0.2.7", "test")
TOKEN = "ghp_the-token-that-may-read"
OTHER = "ghp_the-token-that-may-not"
GIT_USER = "x-access-token"
ALL = 1 << 30


@pytest.fixture
async def public(tmp_path):
    (tmp_path / "served").mkdir()
    async with GitServer(tmp_path / "served") as server:
        yield server


@pytest.fixture
async def private(tmp_path):
    (tmp_path / "private").mkdir()
    async with GitServer(tmp_path / "private", credentials=(GIT_USER, TOKEN)) as server:
        yield server


def let_in(server: GitServer, token: str | None) -> None:
    server._expected = None if token is None else base64.b64encode(f"{GIT_USER}:{token}".encode()).decode()


class Machine:
    """A worker on a machine with mirrors, and the users of its server."""

    def __init__(self, db, root, *, hosts, github, **more):
        rules = {"allow_plain_http": True, "bytes_max": ALL, "free_bytes_min": 0}
        self.db = db
        self.credentials = Credentials(db=db, keyring=Keyring(b"r" * 32), world=WORLD, server_has_model_key=False)
        self.folders = Folders(root, WORLD)
        self.mirrors = Mirrors(
            folders=self.folders,
            rules=Rules(hosts=hosts, github=github, **{**rules, **more}),
            db=db,
            credentials=self.credentials,
            world=WORLD,
            refresh_wait_s=0.5 if "bytes_max" not in more else 5,
        )

    async def user(self, token: str | None = None) -> UserId:
        user_id = UserId(WORLD.new_id())
        async with self.db.system_transaction() as tx:
            await users.open_account(tx, user_id=user_id, email=f"{user_id}@example.com", name=None, now=WORLD.now())
        if token is not None:
            await self.set_token(user_id, token)
        return user_id

    async def set_token(self, user_id: UserId, token: str) -> None:
        key = await self.credentials.current_key()
        async with self.db.transaction(user_id) as tx:
            await self.credentials.put(tx, CredentialKind.GITHUB_TOKEN, SecretStr(token), key, HERE)

    async def made(self, user_id: UserId, url: str) -> None:
        """What the background does after a clone."""
        address = self.mirrors._rules.admitted(url)
        with suppress(FFError):
            await self.mirrors.make(user_id, address)

    def kept(self) -> list[str]:
        return sorted(
            "/".join(path.parent.relative_to(self.folders.root).parts[:-1]) for path in self.folders.root.rglob("current")
        )


@pytest.fixture
def machine(db, tmp_path, public, private):
    return Machine(db, tmp_path / "mirrors", hosts=(public.origin, private.origin), github=private.origin)


async def files_of(stream, place) -> set[str]:
    """Unpack a seed; the names of all files in all commits."""
    assert stream is not None
    await seed.unpack(stream, place, bytes_max=ALL)
    words = ["git", "log", "--all", "--format=", "--name-only"]
    done = await run(words, cwd=place, env={"PATH": "/usr/bin:/bin"}, timeout_s=10, output_bytes_max=1 << 20)
    assert done.exit_code == 0, done.stderr
    return set(done.stdout.decode().split())


async def test_the_second_clone_of_anybody_gets_what_is_public(machine, public, tmp_path):
    url = await public.create("o/r", {"a": "1"})
    ann, bob = await machine.user(), await machine.user()
    assert await machine.mirrors.seed_for(ann, url) is None
    await machine.made(ann, url)
    assert machine.kept() == ["public"]
    for user in (ann, bob):
        assert await files_of(await machine.mirrors.seed_for(user, url), tmp_path / "seed") == {"a"}
    await public.commit("o/r", {"b": "2"})
    assert await files_of(await machine.mirrors.seed_for(bob, url), tmp_path / "seed") == {"a", "b"}
    assert machine.folders.root.stat().st_mode & 0o77 == 0


async def test_what_is_private_is_for_whom_the_server_lets_read_it(machine, private, tmp_path):
    url = await private.create("o/r", {"secret": "1"})
    ann, eve, bob, joe = [await machine.user(token) for token in (TOKEN, OTHER, None, TOKEN)]
    for user in (ann, eve, bob):
        await machine.made(user, url)
    assert machine.kept() == [f"private/{ann}"]
    assert await files_of(await machine.mirrors.seed_for(ann, url), tmp_path / "seed") == {"secret"}
    for user in (eve, bob, joe):
        assert await machine.mirrors.seed_for(user, url) is None
    # Whoever may read it too has a mirror of his own.
    await machine.made(joe, url)
    assert machine.kept() == sorted([f"private/{ann}", f"private/{joe}"])
    assert await files_of(await machine.mirrors.seed_for(joe, url), tmp_path / "seed") == {"secret"}


async def test_access_that_was_withdrawn_counts_at_once_and_the_copy_goes(machine, private):
    url = await private.create("o/r", {"secret": "1"})
    ann, joe = await machine.user(TOKEN), await machine.user(TOKEN)
    await machine.made(ann, url)
    await machine.made(joe, url)
    let_in(private, OTHER)
    assert await machine.mirrors.seed_for(ann, url) is None
    assert machine.kept() == [f"private/{joe}"]
    let_in(private, TOKEN)
    assert await machine.mirrors.seed_for(ann, url) is None

    async with machine.db.transaction(joe) as tx:
        await machine.credentials.remove(tx, CredentialKind.GITHUB_TOKEN, HERE)
    assert await machine.mirrors.seed_for(joe, url) is None
    assert machine.kept() == []


async def test_what_was_public_and_no_longer_is(machine, private):
    url = await private.create("o/r", {"secret": "1"})
    let_in(private, None)
    ann, bob = await machine.user(TOKEN), await machine.user()
    await machine.made(bob, url)
    assert await machine.mirrors.seed_for(bob, url) is not None
    let_in(private, TOKEN)
    for user in (bob, ann):
        assert await machine.mirrors.seed_for(user, url) is None
    assert machine.kept() == []
    await machine.made(ann, url)
    assert machine.kept() == [f"private/{ann}"]
    assert await machine.mirrors.seed_for(bob, url) is None


async def test_no_server_but_those_of_the_gateway_is_asked_and_only_github_gets_the_token(db, public, private, tmp_path):
    url, hidden = await public.create("r", {"a": "1"}), await private.create("r", {"a": "1"})
    closed = Machine(db, tmp_path / "mirrors", hosts=(), github=private.origin)
    user = await closed.user(TOKEN)
    public_asked = await closed.mirrors.seed_for(user, url)
    closed.mirrors.note_clone(user, url)
    assert public_asked is None
    assert closed.mirrors._noted.empty()
    other = Machine(db, tmp_path / "mirrors", hosts=(public.origin, private.origin), github=public.origin)
    await other.made(user, hidden)
    assert other.kept() == []


async def test_a_refresh_that_is_late_is_not_waited_for(machine, public, tmp_path):
    url = await public.create("r", {"a": "1"})
    user = await machine.user()
    await machine.made(user, url)
    mirror = machine.folders.public(machine.mirrors._rules.admitted(url))
    await public.commit("r", {"b": "2"})
    async with lock(mirror.place / "lock", wait_s=1, world=WORLD):
        assert await files_of(await machine.mirrors.seed_for(user, url), tmp_path / "seed") == {"a"}
        assert await files_of(await machine.mirrors.seed_for(user, url), tmp_path / "seed") == {"a"}
        assert len(machine.mirrors._refreshing) == 1
    await asyncio.gather(*machine.mirrors._refreshing.values())
    assert await files_of(await machine.mirrors.seed_for(user, url), tmp_path / "seed") == {"a", "b"}
    assert machine.mirrors._refreshing == {}


async def test_a_server_that_is_away_is_no_reason_to_remove_anything(machine, public, tmp_path):
    async with GitServer(tmp_path / "served") as short:
        url = await short.create("r", {"a": "1"})
        here = Machine(machine.db, tmp_path / "mirrors", hosts=(short.origin,), github="https://github.com")
        user = await here.user()
        await here.made(user, url)
        assert await here.mirrors.seed_for(user, url) is not None
    assert await here.mirrors.seed_for(user, url) is None
    assert here.kept() == ["public"]


@asynccontextmanager
async def running(mirrors: Mirrors):
    task = asyncio.create_task(mirrors.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_noted_clone_gets_its_mirror_in_the_background_on_one_of_two_workers(machine, public, private, tmp_path):
    second = Machine(machine.db, tmp_path / "mirrors", hosts=(public.origin, private.origin), github=private.origin)
    urls = [await public.create(f"r{number}", {f"f{number}": "1"}) for number in range(3)]
    user = await machine.user()
    async with running(machine.mirrors), running(second.mirrors):
        for url in urls:
            machine.mirrors.note_clone(user, url)
            machine.mirrors.note_clone(user, url)
            second.mirrors.note_clone(user, url)
        machine.mirrors.note_clone(user, public.url("nothing"))
        await until(lambda: len(machine.kept()) == 3 and machine.mirrors._noted.empty() and second.mirrors._noted.empty())
        for number, url in enumerate(urls):
            assert await files_of(await second.mirrors.seed_for(user, url), tmp_path / "seed") == {f"f{number}"}


async def test_what_waits_is_bounded(machine, public):
    user = await machine.user()
    for number in range(NOTED_MAX + 5):
        machine.mirrors.note_clone(user, public.url(f"r{number}"))
    assert machine.mirrors._noted.qsize() == NOTED_MAX
    assert len(machine.mirrors._waiting) == NOTED_MAX


async def test_mirrors_go_by_size_the_least_recently_used_first_and_none_in_use(machine, public, private, tmp_path):
    urls = [await public.create(f"r{number}", {"f": bytes(range(256)) * 40, f"g{number}": "1"}) for number in range(3)]
    user = await machine.user()
    for url in urls:
        await machine.made(user, url)
    one = (await asyncio.to_thread(machine.folders.collect, machine.mirrors._rules)) // 3
    stream = await machine.mirrors.seed_for(user, urls[0])
    await anext(stream)  # in use
    assert await files_of(await machine.mirrors.seed_for(user, urls[1]), tmp_path / "seed")

    def small(bytes_max: int) -> Machine:
        hosts = (public.origin, private.origin)
        return Machine(machine.db, tmp_path / "mirrors", hosts=hosts, github=private.origin, bytes_max=bytes_max)

    await small(2 * one + one // 2).mirrors.sweep()
    assert [await machine.mirrors.seed_for(user, url) is not None for url in urls] == [True, True, False]
    await small(one // 2).mirrors.sweep()
    assert [await machine.mirrors.seed_for(user, url) is not None for url in urls] == [True, False, False]
    await stream.aclose()
    await small(one // 2).mirrors.sweep()
    assert machine.kept() == []

    off = small(0)
    await machine.made(user, urls[0])
    assert await off.mirrors.seed_for(user, urls[0]) is None
    await off.mirrors.sweep()
    assert list((tmp_path / "mirrors/public").iterdir()) == []


async def test_no_mirror_is_made_that_would_fill_the_disk_or_is_too_large(db, public, tmp_path):
    url = await public.create("r", {"f": "1"})
    full = Machine(db, tmp_path / "mirrors", hosts=(public.origin,), github=public.origin, free_bytes_min=1 << 60)
    user = await full.user()
    await full.made(user, url)
    assert full.kept() == []
    small = Machine(db, tmp_path / "mirrors", hosts=(public.origin,), github=public.origin, bytes_max=100)
    await small.made(user, url)
    assert small.kept() == []


async def test_the_mirrors_of_an_account_go_with_it_or_with_its_token(machine, public, private):
    url, hidden = await public.create("r", {"a": "1"}), await private.create("r", {"a": "1"})
    ann, bob, joe, eve = [await machine.user(TOKEN) for _ in range(4)]
    await machine.made(ann, url)
    for user in (ann, bob, joe, eve):
        await machine.made(user, hidden)
    reading = await machine.mirrors.seed_for(ann, hidden)
    await anext(reading)
    await machine.mirrors.forget_user(ann)
    await machine.mirrors.forget_user(ann)
    assert machine.kept() == sorted([f"private/{bob}", f"private/{joe}", f"private/{eve}", "public"])
    await reading.aclose()
    async with machine.db.system_transaction() as tx:
        await users.disable(tx, bob, WORLD.now(), closing=True)
    async with machine.db.transaction(joe) as tx:
        await machine.credentials.remove(tx, CredentialKind.GITHUB_TOKEN, HERE)
    await machine.mirrors.sweep()
    assert machine.kept() == [f"private/{eve}", "public"]
    assert [path.name for path in (machine.folders.root / "private").iterdir()] == [str(eve)]


async def test_closing_an_account_removes_its_mirrors_before_its_rows(machine, private):
    class NoWorkspaces:
        async def page(self, *_args, **_more):
            return []

    hidden = await private.create("r", {"a": "1"})
    ann = await machine.user(TOKEN)
    await machine.made(ann, hidden)
    (kind,) = closing_kinds(db=machine.db, workspaces=NoWorkspaces(), world=WORLD, forget=machine.mirrors.forget_user)
    effects = await kind.steps[-1].do(SimpleNamespace(key=key_of(ann)))
    assert machine.kept() == []
    assert effects.apply is not None


async def test_a_damaged_mirror_is_noticed_and_goes(machine, public, tmp_path):
    url = await public.create("r", {"a": "1"})
    user = await machine.user()
    for damage in (lambda data: b"", lambda data: data[:-30] + b"\0" + data[-29:], lambda data: None):
        await machine.made(user, url)
        assert machine.kept() == ["public"]
        for pack in (tmp_path / "mirrors/public").rglob("*.pack"):
            damaged = damage(pack.read_bytes())
            pack.unlink()
            if damaged is not None:
                pack.write_bytes(damaged)
        with pytest.raises(seed.SeedRefused):
            await files_of(await machine.mirrors.seed_for(user, url), tmp_path / "seed")
        assert machine.kept() == []


async def test_a_folder_that_can_not_be_used_stops_nobody(machine, public, tmp_path):
    url = await public.create("r", {"a": "1"})
    user = await machine.user()
    (tmp_path / "mirrors").write_text("in the way")
    assert await machine.mirrors.seed_for(user, url) is None
    with pytest.raises(MirrorsUnusable):
        await machine.mirrors.make(user, machine.mirrors._rules.admitted(url))
    with pytest.raises(MirrorsUnusable):
        await machine.mirrors.sweep()


async def test_what_killed_processes_left_goes(machine, public, tmp_path):
    url = await public.create("r", {"a": "1"})
    user = await machine.user()
    await machine.made(user, url)
    for left in ("public/trash-1", "private/trash-2", f"private/{user}/trash-3"):
        (tmp_path / "mirrors" / left / "gen-1").mkdir(parents=True)
    await machine.mirrors.sweep()
    assert machine.kept() == ["public"]
    assert not list((tmp_path / "mirrors").rglob("trash-*"))
    assert not list((tmp_path / "mirrors/private").iterdir())

"""A seed through the daemon's door, from a mirror of a repository to a checkout."""

import asyncio
import os
import subprocess
from datetime import UTC, datetime

from ff_core.git import seed
from ff_core.testing.git_server import GitServer


async def test_a_checkout_starts_from_the_seed_that_came_before(spawn, root, bind_body, tmp_path):
    mirror = tmp_path / "mirror"
    (tmp_path / "served").mkdir()
    async with GitServer(tmp_path / "served") as server:
        url = await server.create("team/app", {"big": os.urandom(3 << 20)})

        def clone_and_seed() -> None:
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
            subprocess.run(["git", "clone", "--quiet", "--bare", "--template=", url, str(mirror)], check=True, env=env)
            seed.describe(mirror, url=url, fetched_at=datetime(2030, 1, 1, tzinfo=UTC))

        await asyncio.to_thread(clone_and_seed)
        pieces = [piece async for piece in seed.pack(mirror)]
        await server.commit("team/app", {"new": "er"})

        def through_the_door() -> None:
            daemon = spawn(root, FF_ALLOW_PLAIN_HTTP="1").start()
            daemon.http.post("/v1/bind", json=bind_body)
            taken = daemon.http.put("/v1/repository/seed", content=iter(pieces))
            assert taken.status_code == 200, taken.text
            assert (taken.json()["url"], taken.json()["size_bytes"] > 3 << 20) == (url, True)
            made = daemon.http.put("/v1/repository", json={"url": url})
            assert made.status_code == 200, made.text

        await asyncio.to_thread(through_the_door)
    packs = {path.name for path in (mirror / "objects/pack").glob("*.pack")}
    assert packs < {path.name for path in (root / "repo/.git/objects/pack").glob("*.pack")}
    assert (root / "repo/new").read_text() == "er"
    assert [path.name for path in root.iterdir() if path.name.startswith(".repo")] == []

"""Installing what peers need, below ``.ff-dev/bench``: Python environments, JupyterHub's proxy, images. Cached by content."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.peers.base import PeerFailed, command, docker

from ff_cloud.vms.image import BASE_IMAGE, PROXY_VARIABLES, read_extra_ca

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
HERE = ROOT / ".ff-dev" / "bench"
TRUST = ROOT / "images/workspace/trust.py"
INSTALL_TIMEOUT_S = 900.0
STAMP = ".ff-stamp"


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def _uv() -> str:
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".tools/uv/bin"))
    if found is None:
        raise PeerFailed("uv is missing; run scripts/bootstrap.sh env")
    return found


async def python_with(name: str) -> Path:
    """The folder of programs of an environment that holds exactly ``bench/requirements-NAME.txt``; seconds the first time."""
    requirements = BENCH / f"requirements-{name}.txt"
    folder = HERE / name
    wanted = _digest(requirements.read_bytes(), str(folder).encode())
    if not _stamped(folder, wanted):
        print(f"bench: installing {name}", flush=True)
        HERE.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never", "VIRTUAL_ENV": str(folder)}
        uv = _uv()
        python = str(ROOT / ".venv/bin/python")
        await command(uv, "venv", "--quiet", "--clear", "--python", python, str(folder), timeout_s=INSTALL_TIMEOUT_S, env=env)
        sync = ["pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", str(requirements)]
        await command(uv, *sync, timeout_s=INSTALL_TIMEOUT_S, env=env)
        (folder / STAMP).write_text(wanted)
    return folder / "bin"


async def node_modules(node: Path, npm: Path) -> Path:
    """The folder of packages of ``bench/peers/package-lock.json``."""
    sources = [BENCH / "peers" / name for name in ("package.json", "package-lock.json")]
    folder = HERE / "node"
    wanted = _digest(*(source.read_bytes() for source in sources))
    if not _stamped(folder, wanted):
        print("bench: installing configurable-http-proxy", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, folder)
        env = {**os.environ, "PATH": f"{node.parent}:{os.environ['PATH']}"}
        quietly = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev"]
        await command(str(node), str(npm), "ci", *quietly, timeout_s=INSTALL_TIMEOUT_S, env=env, cwd=str(folder))
        (folder / STAMP).write_text(wanted)
    return folder / "node_modules"


async def image(name: str, requirements: Sequence[str]) -> str:
    """The tag of the image of ``bench/peers/images/NAME.Dockerfile``, built when it is not there; a minute the first time."""
    dockerfile = BENCH / "peers/images" / f"{name}.Dockerfile"
    extra_ca = read_extra_ca(None, os.environ)
    files = {
        "Dockerfile": dockerfile.read_bytes(),
        "trust.py": TRUST.read_bytes(),
        "extra-ca.crt": extra_ca,
        **{file: (BENCH / file).read_bytes() for file in requirements},
    }
    tag = f"ff-bench-{name}:{_digest(BASE_IMAGE.encode(), *files.values())}"
    try:
        await docker("image", "inspect", "--format", "{{.Id}}", tag)
    except PeerFailed:
        print(f"bench: building {tag}", flush=True)
    else:
        return tag
    with tempfile.TemporaryDirectory(prefix="ff-bench-image-") as context:
        for file, content in files.items():
            (Path(context) / file).write_bytes(content)
        arguments = [f"--build-arg=BASE_IMAGE={BASE_IMAGE}"]
        arguments += [f"--build-arg={name}" for name in PROXY_VARIABLES if os.environ.get(name)]
        build = ["docker", "build", "--quiet", "--force-rm", "--tag", tag, *arguments, context]
        await command(*build, timeout_s=INSTALL_TIMEOUT_S, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    return tag


def _stamped(folder: Path, wanted: str) -> bool:
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == wanted

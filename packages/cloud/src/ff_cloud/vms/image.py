"""The image that VMs are made from: its build context, its tag by content, and its build.

The context holds only what goes into the image (``images/workspace`` and the sources of ``ff_core``), so the hash of
the context names the image, and an unchanged tree builds nothing.
"""

import argparse
import asyncio
import hashlib
import io
import os
import sys
import tarfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from ff_cloud.vms.errors import DockerUnreachable, ImageBuildFailed, ImageMissing
from ff_core.errors import FFError, InvalidInput

REPOSITORY = "ff-workspace"
LATEST = f"{REPOSITORY}:latest"
BASE_IMAGE = "ff-base:trixie"
"""Debian 13, made by ``scripts/base-image.sh`` with or without a registry; its name is the same either way."""

DOCKERFILE = Path("images/workspace/Dockerfile")
IMAGE_FILES = ("Dockerfile", "requirements.lock", "trust.py", "rootfs")
NOT_IN_IMAGE = frozenset({"__pycache__", "testing"})

CONTEXT_BYTES_MAX = 32 * 1024 * 1024
QUESTION_TIMEOUT_S = 15.0
BUILD_TIMEOUT_S = 30 * 60.0
LINE_CHARS_MAX = 500
TAIL_LINES_MAX = 30
UNREACHABLE_STATUS = 900  # aiodocker's own, for "no connection"

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Docker knows these as build arguments that stay out of the image and of its history."""


@dataclass(frozen=True)
class Built:
    """An image on the Engine. ``fresh`` says whether this call built it; ``bytes_total`` counts all its layers."""

    tag: str
    bytes_total: int
    fresh: bool


@dataclass(frozen=True)
class ContextFile:
    """One file of the build context; of its mode only "executable" counts, as in git."""

    content: bytes
    executable: bool


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` that holds the image's Dockerfile.

    Raises ``InvalidInput`` when there is none: the image is built from a checkout of this project.
    """
    for folder in (start, *start.resolve().parents):
        if (folder / DOCKERFILE).is_file():
            return folder
    raise InvalidInput(
        f"No {DOCKERFILE} at or above {start}. Run this inside a checkout of factory-factory-cloud, or name it with --root."
    )


def read_extra_ca(path: Path | None, environ: Mapping[str, str]) -> bytes:
    """The certificates this machine trusts beyond Debian's own: ``path``, else FF_EXTRA_CA, else SSL_CERT_FILE.

    Empty when none is given. Raises ``InvalidInput`` when the file can't be read.
    """
    chosen = path or environ.get("FF_EXTRA_CA") or environ.get("SSL_CERT_FILE")
    if not chosen:
        return b""
    try:
        return Path(chosen).read_bytes()
    except OSError as exc:
        raise InvalidInput(
            f"Cannot read the extra CA file {chosen} ({exc.strerror}). Correct --extra-ca, FF_EXTRA_CA or SSL_CERT_FILE."
        ) from exc


def content_tag(root: Path, extra_ca: bytes) -> str:
    """The name of the image that this source tree makes, such as ``ff-workspace:4f0c…`` (12 hex digits).

    Changes exactly when a byte of the build context, or the base image's name, does.
    """
    return _tag(_context(root, extra_ca))


async def build(
    root: Path,
    *,
    extra_ca: bytes = b"",
    docker_url: str | None = None,
    proxies: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _line: None,
    build_timeout_s: float = BUILD_TIMEOUT_S,
) -> Built:
    """Make the image of the tree at ``root`` exist on the Engine, also as ``ff-workspace:latest``.

    Builds nothing when the image of this content is there. Safe to repeat and to race (the cost is a second build,
    mostly from the cache). ``progress`` gets every line the Engine reports, shortened to ``LINE_CHARS_MAX``.
    Raises ``DockerUnreachable``, ``ImageMissing`` (the base image) or ``ImageBuildFailed``, which carries the last lines.
    """
    context = _context(root, extra_ca)
    tag = _tag(context)
    async with _engine(docker_url) as docker:
        found = await _inspect(docker, tag)
        fresh = found is None
        if found is None:
            if await _inspect(docker, BASE_IMAGE) is None:
                raise ImageMissing(f"The base image {BASE_IMAGE} is not on the Docker Engine. Run `scripts/base-image.sh`.")
            await _run_build(
                docker,
                _pack(context),
                tag=tag,
                proxies=proxies or {},
                progress=progress,
                timeout_s=build_timeout_s,
            )
            found = await _inspect(docker, tag)
            if found is None:  # a lost connection ends the Engine's report without a word
                raise ImageBuildFailed("The Docker Engine stopped reporting before the image was built. Try again.")
        await docker.images.tag(tag, REPOSITORY, tag="latest")
        return Built(tag=tag, bytes_total=int(found["Size"]), fresh=fresh)


def _context(root: Path, extra_ca: bytes) -> dict[str, ContextFile]:
    context = {"extra-ca.crt": ContextFile(extra_ca, executable=False)}
    for name in IMAGE_FILES:
        context |= _read(root / DOCKERFILE.parent / name, name)
    context |= _read(root / "packages/core/src/ff_core", "ff_core")
    size = sum(len(file.content) for file in context.values())
    if size > CONTEXT_BYTES_MAX:
        raise ImageBuildFailed(f"The build context has {size} bytes; at most {CONTEXT_BYTES_MAX} are sent. What grew so large?")
    return context


def _read(path: Path, name: str) -> dict[str, ContextFile]:
    """A file, or the files below a folder, by their names in the context."""
    if path.is_file():
        return {name: ContextFile(path.read_bytes(), executable=os.access(path, os.X_OK))}
    if not path.is_dir():
        raise ImageBuildFailed(f"{path} is missing from the source tree. Check out the project again.")
    files: dict[str, ContextFile] = {}
    for child in sorted(path.iterdir()):
        if child.name not in NOT_IN_IMAGE:
            files |= _read(child, f"{name}/{child.name}")
    return files


def _tag(context: Mapping[str, ContextFile]) -> str:
    digest = hashlib.sha256(BASE_IMAGE.encode())
    for name, file in sorted(context.items()):
        mark = hashlib.sha256(file.content).hexdigest()
        digest.update(f"\n{name}\t{file.executable}\t{mark}".encode())
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def _pack(context: Mapping[str, ContextFile]) -> io.BytesIO:
    """A tar that is the same for the same content, whoever packs it: Docker's cache compares owners and modes too."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, file in sorted(context.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(file.content)
            entry.mode = 0o755 if file.executable else 0o644
            tar.addfile(entry, io.BytesIO(file.content))
    packed.seek(0)
    return packed


@asynccontextmanager
async def _engine(url: str | None) -> AsyncIterator[aiodocker.Docker]:
    """A connection to the Engine, its failures translated."""
    try:
        docker = aiodocker.Docker(url, timeout=aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S))
    except (AssertionError, ValueError) as exc:  # how aiodocker says "no socket, no DOCKER_HOST"
        raise DockerUnreachable from exc
    try:
        yield docker
    except DockerError as exc:
        if exc.status == UNREACHABLE_STATUS:
            raise DockerUnreachable from exc
        raise ImageBuildFailed(f"The Docker Engine refused: {exc.message}") from exc
    except (TimeoutError, aiohttp.ClientError) as exc:
        raise DockerUnreachable from exc
    finally:
        await docker.close()


async def _inspect(docker: aiodocker.Docker, name: str) -> dict[str, Any] | None:
    try:
        return await docker.images.inspect(name)
    except DockerError as exc:
        if exc.status == 404:
            return None
        raise


async def _run_build(
    docker: aiodocker.Docker,
    packed: io.BytesIO,
    *,
    tag: str,
    proxies: Mapping[str, str],
    progress: Callable[[str], None],
    timeout_s: float,
) -> None:
    tail: deque[str] = deque(maxlen=TAIL_LINES_MAX)
    report = docker.images.build(
        fileobj=packed,
        encoding="identity",
        tag=tag,
        rm=True,
        forcerm=True,
        buildargs={"BASE_IMAGE": BASE_IMAGE, **proxies},
        stream=True,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=QUESTION_TIMEOUT_S),
    )
    try:
        async with asyncio.timeout(timeout_s):
            async for entry in report:
                for line in str(entry.get("stream") or entry.get("status") or "").splitlines():
                    if text := line.rstrip()[:LINE_CHARS_MAX]:
                        tail.append(text)
                        progress(text)
    except TimeoutError as exc:
        raise ImageBuildFailed(_failure(f"The build took longer than {timeout_s:.0f} s.", tail)) from exc
    except DockerError as exc:
        if exc.status == UNREACHABLE_STATUS:
            raise
        raise ImageBuildFailed(_failure(f"The Docker Engine could not build the image: {exc.message}", tail)) from exc


def _failure(sentence: str, tail: deque[str]) -> str:
    return "\n".join([sentence, "Its last lines were:", *(f"  {line}" for line in tail)]) if tail else sentence


def main() -> int:
    """Build the image of a checkout and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m ff_cloud.vms.image", description="Builds the workspace image.")
    parser.add_argument("--root", type=Path, help="the checkout (default: the one around this folder)")
    parser.add_argument("--extra-ca", type=Path, help="PEM file to trust (default: FF_EXTRA_CA, else SSL_CERT_FILE)")
    arguments = parser.parse_args()

    def show(line: str) -> None:
        if line.startswith("Step "):
            sys.stdout.write(f"image: {line[:110]}\n")
            sys.stdout.flush()

    try:
        root = arguments.root or find_root(Path.cwd())
        extra_ca = read_extra_ca(arguments.extra_ca, os.environ)
        proxies = {name: os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)}
        built = asyncio.run(build(root, extra_ca=extra_ca, proxies=proxies, progress=show))
    except FFError as error:
        sys.stderr.write(f"image: {error.detail}\n")
        return 1
    word = "built" if built.fresh else "unchanged"
    sys.stdout.write(f"image: {built.tag} {word}, {built.bytes_total / 1e6:.0f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

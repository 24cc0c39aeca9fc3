"""Git through the gateway: what the user's git is told, so that no real credential is needed where it runs.

A remote keeps its own address, ``https://github.com/owner/name.git``; git itself goes to the gateway for it
(``url.….insteadOf``) and shows the VM's own token there and nowhere else (``http.….extraHeader``). So clone, fetch and
push work alike for us, in every shell and for the agent.
"""

import os
import secrets
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ff_core.contract.plain import GitWay
from ff_core.errors import FFError
from ff_core.process import RunAs, clean_env, run

if TYPE_CHECKING:
    from ff_core.git.remote import RepoUrl

PLACE = ".config/factory-factory/gitconfig"
"""Below HOME; included by the system's configuration (in the image) or the user's own."""
SYSTEM = Path("/etc/gitconfig")
INSTALL_TIMEOUT_S = 20.0
_OUTPUT_BYTES_MAX = 4096

# Runs as the user, so that no link that he may have put in the way leads anywhere he can't go himself. The token comes
# on standard input: arguments and environment can be read by others.
_INSTALL = """
set -eu
umask 077
mkdir -p "$(dirname "$1")"
cat > "$1.$$"
mv "$1.$$" "$1"
test "$2" = included && exit
git config --global --get-all include.path | grep -qxF -- "$1" || git config --global --add include.path "$1"
"""
_REMOVE = 'rm -f -- "$1"'


class GitNotConfigured(FFError):
    """Git could not be told how to reach the gateway; look for a broken ~/.gitconfig or a full disk in the workspace."""

    code = "git_not_configured"


async def install(access: GitWay | None, *, home: Path, run_as: RunAs | None, system: Path = SYSTEM) -> None:
    """Make the git of the user with this HOME go through the gateway; None: no longer. May be repeated.

    Leaves one file with mode 0600, which is replaced whole, and one ``include`` in the user's own configuration unless the
    ``system``'s has it; then it takes a fraction of a millisecond. Raises :class:`GitNotConfigured`.
    """
    included = PLACE in _read(system)
    if access is not None and included and _written(configuration(access).encode(), home, run_as):
        return
    script = _REMOVE if access is None else _INSTALL
    done = await run(
        ["sh", "-c", script, "sh", str(home / PLACE), "included" if included else "missing"],
        cwd=home,
        env=clean_env(HOME=str(home), LC_ALL="C"),
        timeout_s=INSTALL_TIMEOUT_S,
        output_bytes_max=_OUTPUT_BYTES_MAX,
        stdin=b"" if access is None else configuration(access).encode(),
        user=run_as,
    )
    if done.exit_code != 0:
        raise GitNotConfigured


def _written(content: bytes, home: Path, run_as: RunAs | None) -> bool:
    """Write the file by our own hand, following no link; False: something is in the way, and nothing has changed."""
    *folders, name = Path(PLACE).parts
    making = f".{name}.{secrets.token_hex(8)}"
    try:
        with ExitStack() as stack:
            at = _open_folder(home, None, stack)
            for folder in folders:
                at = _made(folder, at, run_as, stack)
            try:
                file = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=at)
                with os.fdopen(file, "wb") as writing:
                    writing.write(content)
                    if run_as is not None:
                        os.fchown(file, run_as.uid, run_as.gid)
                os.rename(making, name, src_dir_fd=at, dst_dir_fd=at)
            except OSError:
                with suppress(OSError):
                    os.unlink(making, dir_fd=at)
                raise
    except OSError:
        return False
    return True


def _made(name: str, at: int, run_as: RunAs | None, stack: ExitStack) -> int:
    """The folder ``name`` in the folder ``at``; a new one is the user's."""
    try:
        os.mkdir(name, 0o700, dir_fd=at)
    except FileExistsError:
        return _open_folder(name, at, stack)
    folder = _open_folder(name, at, stack)
    if run_as is not None:
        os.fchown(folder, run_as.uid, run_as.gid)
    return folder


def _open_folder(name: Path | str, at: int | None, stack: ExitStack) -> int:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    stack.callback(os.close, folder)
    return folder


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def configuration(access: GitWay) -> str:
    """The file: a git configuration with the VM's token in it. Pure; every part is free of quotes and line breaks."""
    gateway = f"{access.gateway_url}/git/"
    lines = [
        "# Written by Factory Factory whenever this machine is given to its workspace; changes are lost.",
        f'[http "{gateway}"]',
        "\textraHeader =",  # read twice, by whatever way, it is still one header
        f"\textraHeader = Authorization: Bearer {access.token.get_secret_value()}",
        "\tproxy =",  # a proxy for the outside knows no way to it
        # A token that is refused is refused: neither ask a person nor another helper. Git only shows what the gateway
        # says when it had something to try, so it gets a word that is never sent in place of the header.
        f'[credential "{gateway}"]',
        "\thelper =",
        '\thelper = "!f() { test \\"$1\\" = get && printf \'username=vm\\\\npassword=refused\\\\n\'; }; f"',
    ]
    for host in access.hosts:
        scheme, _, authority = host.partition("://")
        lines += [f'[url "{gateway}{scheme}/{authority}/"]', f"\tinsteadOf = {host}/"]
        if scheme == "https" and ":" not in authority:
            # There is no SSH key here, but remotes written on a laptop often want one.
            lines += [f"\tinsteadOf = git@{authority}:", f"\tinsteadOf = ssh://git@{authority}/"]
    return "\n".join(lines) + "\n"


def detour(access: GitWay | None, url: "RepoUrl") -> str | None:
    """The protocol by which git reaches the gateway when that is its way to ``url``; None when it goes there itself. Pure."""
    if access is None or url.origin not in access.hosts:
        return None
    return access.gateway_url.partition("://")[0]

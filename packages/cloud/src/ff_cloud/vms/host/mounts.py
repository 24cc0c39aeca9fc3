"""File systems in files: attached to a loop device, mounted, grown and let go, by asking the kernel itself. Needs root.

A loop device made here is given back by the kernel with its last mount, so nobody who dies leaves one behind.
"""

import ctypes
import fcntl
import os
import re
import struct
import time
from errno import EBUSY, EINVAL, ENOENT
from pathlib import Path

_GET_FREE, _CONFIGURE, _SET_CAPACITY = 0x4C82, 0x4C0A, 0x4C07
_AUTOCLEAR, _DIRECT_IO = 4, 16
_NOSUID, _NODEV, _NOATIME = 2, 4, 1024
_DETACH = 2
_BLOCK_BYTES = 4096
_NAME_BYTES = 64
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
_CONFIG = struct.Struct(f"=II{_INFO.size}s8Q")
ATTEMPTS_MAX = 50
BUSY_WAIT_S = 0.02
OPTIONS = "discard,noinit_itable,errors=remount-ro"
"""Deleted files give their space back to the host, and empty tables are not written out."""


def mounted(target: Path) -> bool:
    """Whether something is mounted there."""
    try:
        return target.stat().st_dev != target.parent.stat().st_dev
    except FileNotFoundError:
        return False


def mount(image: Path, target: Path, *, fresh: bool, discard: bool = True) -> None:
    """Mount the ext4 in ``image`` at ``target``. ``fresh``: the file is new, so no device can have it yet.

    A file that is still attached, because a container holds on to an old mount, is mounted from the same device: two
    devices over one file would destroy what is in it. Raises ``OSError``.
    """
    device, handle = (None if fresh else _hold(image)) or _attach(image)
    try:
        options = OPTIONS if discard else OPTIONS.removeprefix("discard,")
        flags = _NOSUID | _NODEV | _NOATIME
        _check(_libc.mount(os.fsencode(device), os.fsencode(target), b"ext4", flags, options.encode()))
    finally:
        os.close(handle)


def let_go(image: Path) -> bool:
    """Wait a moment until no device has the file any more: the kernel gives one back a little after its last mount.

    False when it is held on to.
    """
    for _ in range(ATTEMPTS_MAX):
        if attached(image) is None:
            return True
        time.sleep(BUSY_WAIT_S)
    return False


def unmount(target: Path) -> None:
    """Let go of what is mounted there; nothing is: nothing to do. What is in use goes when its last user does."""
    for attempt in range(ATTEMPTS_MAX):
        if _libc.umount2(os.fsencode(target), 0 if attempt < ATTEMPTS_MAX - 1 else _DETACH) == 0:
            continue  # there may be another one below
        code = ctypes.get_errno()
        if code in {EINVAL, ENOENT}:
            return
        if code != EBUSY:
            raise OSError(code, os.strerror(code))
        time.sleep(BUSY_WAIT_S)


def unmount_below(folder: Path) -> None:
    """Let go of everything that is mounted in a folder, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    targets = [Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[1])) for line in lines]
    for target in sorted((one for one in targets if one.is_relative_to(folder)), key=lambda one: len(one.parts), reverse=True):
        unmount(target)


def attached(image: Path) -> Path | None:
    """The loop device that has this file."""
    wanted = image.stat()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found = Path(backing.read_text().rstrip("\n")).stat()
        except OSError:  # gone meanwhile, or its file was deleted
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return Path("/dev") / backing.parts[-3]
    return None


def refresh_size(device: Path) -> None:
    """Tell a loop device that its file has grown."""
    handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _SET_CAPACITY)
    finally:
        os.close(handle)


def _hold(image: Path) -> tuple[Path, int] | None:
    """The device that has the file, and a handle that keeps it so; null when none has."""
    while (device := attached(image)) is not None:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        if attached(image) == device:
            return device, handle
        os.close(handle)  # it was just given back
    return None


def _attach(image: Path) -> tuple[Path, int]:
    """A device over the file, and the handle that keeps it until it is mounted."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        name = os.fsencode(image.name)[: _NAME_BYTES - 1]
        info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR | _DIRECT_IO, name, b"", b"", 0, 0)
        config = _CONFIG.pack(backing, _BLOCK_BYTES, info, *(0,) * 8)
        for _ in range(ATTEMPTS_MAX):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, _CONFIGURE, config)
            except OSError as error:
                os.close(handle)
                if error.errno != EBUSY:  # else somebody else was faster
                    raise
            else:
                return device, handle
        raise OSError(EBUSY, os.strerror(EBUSY))
    finally:
        os.close(backing)
        os.close(control)


_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

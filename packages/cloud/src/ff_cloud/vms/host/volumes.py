"""Volumes with a size: each is an ext4 file system in a sparse file, mounted here and given to the Docker Engine by path.

What is in a VM's folder decides: ``disk.ext4`` is there whole or not at all, since it is made under another name. The part
that the VM sees is a folder inside of it, so an unmounted volume is an error and never looks like an empty one. Everything
here blocks and needs root.
"""

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from errno import EDQUOT, ENOSPC, ENXIO, EUCLEAN
from pathlib import Path
from uuid import UUID

from ff_cloud.vms.engine.errors import NoCapacity, VolumeMissing
from ff_cloud.vms.host import mounts
from ff_cloud.vms.host.commands import run
from ff_cloud.vms.host.crash import Crash, no_crash
from ff_cloud.vms.host.errors import HostFailed
from ff_cloud.vms.host.locks import locked
from ff_core.ids import VmId

BYTES_MIN = 16 << 20
JOURNAL_MIB = 32
JOURNAL_FROM_BYTES = 1 << 30
"""Smaller ones have the journal that mkfs finds right."""
PROGRAM_TIMEOUT_S = 300.0
_ROUND = 1 << 20
_DISK, _NEW, _MOUNT, _ROOT = "disk.ext4", "disk.new", "mnt", "workspace"


class Volumes:
    """Those of one deployment, in ``folder``. ``reserve``: take all of the space from the host at once."""

    def __init__(self, folder: Path, *, reserve: bool = False, crash: Crash = no_crash) -> None:
        self._folder = folder
        self._reserve = reserve
        self._crash = crash

    def make(self, vm_id: VmId, size_bytes: int) -> Path:
        """Make the volume exist and be mounted; the path of what the VM shall see. One that is there is kept, and grows.

        Safe to repeat and to race. Raises ``NoCapacity``, ``HostFailed``.
        """
        place = self._place(vm_id)
        with _translated(), self._lock(vm_id):
            fresh = not (place / _DISK).exists()
            if fresh:
                self._make_disk(place, size_bytes)
            else:
                self._grow(place, size_bytes)
            self._mount(place, fresh=fresh)
            root = place / _MOUNT / _ROOT
            root.mkdir(mode=0o755, exist_ok=True)
            self._crash("volume:mounted")
            return root

    def mount(self, vm_id: VmId) -> None:
        """Mount the volume of a VM that is about to start, grown to its size. Raises ``VolumeMissing``."""
        place = self._place(vm_id)
        if not (place / _DISK).exists():
            raise VolumeMissing
        with _translated(), self._lock(vm_id):
            self._mount(place, fresh=False)

    def grow(self, vm_id: VmId, size_bytes: int) -> None:
        """Let the volume have ``size_bytes``; it never shrinks. Mounted, it grows at once where the kernel allows it, else
        when it is mounted next. Raises ``VolumeMissing``, ``NoCapacity``, ``HostFailed``.
        """
        place = self._place(vm_id)
        if not (place / _DISK).exists():
            raise VolumeMissing
        with _translated(), self._lock(vm_id):
            self._grow(place, size_bytes)

    def size_bytes(self, vm_id: VmId) -> int | None:
        """The size of the volume's file system; null when there is no volume."""
        disk = self._place(vm_id) / _DISK
        return _file_system_bytes(disk) if disk.exists() else None

    def remove(self, vm_id: VmId) -> None:
        """Unmount and delete the volume, or whatever is left of it. Nothing is: nothing to do. Raises ``HostFailed``."""
        place = self._place(vm_id)
        if not place.exists():
            return
        with _translated(), self._lock(vm_id):
            mounts.unmount(place / _MOUNT)
            self._crash("volume:unmounted")
            (place / _DISK).unlink(missing_ok=True)
            self._crash("volume:deleted")
            shutil.rmtree(place, ignore_errors=True)

    def has(self, vm_id: VmId) -> bool:
        """Whether the VM's volume is here, whole."""
        return (self._place(vm_id) / _DISK).exists()

    def left_of(self, vm_id: VmId) -> bool:
        """Whether anything of it is here."""
        return self._place(vm_id).exists()

    def holds(self, path: str | None) -> bool:
        """Whether a path is that of a volume here, there now or not."""
        return path is not None and Path(path).is_relative_to(self._volumes)

    def all(self) -> set[VmId]:
        """Every VM of which something is here, half made ones too."""
        try:
            names = [entry.name for entry in os.scandir(self._volumes) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return set()
        return {VmId(UUID(name)) for name in names if _is_uuid(name)}

    def clear(self) -> None:
        """Remove all of them and the folder itself."""
        for vm_id in self.all():
            self.remove(vm_id)
        with _translated():
            mounts.unmount_below(self._folder)  # such as a trial's that was killed: nothing is removed through a mount
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _volumes(self) -> Path:
        return self._folder / "volumes"

    def _place(self, vm_id: VmId) -> Path:
        return self._volumes / str(vm_id)

    def _lock(self, vm_id: VmId) -> AbstractContextManager[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._volumes.mkdir(exist_ok=True, mode=0o700)
        return locked(self._volumes / f"{vm_id}.lock")

    def _make_disk(self, place: Path, size_bytes: int) -> None:
        size = max(_rounded(size_bytes), BYTES_MIN)
        template = self._template(size)
        place.mkdir(exist_ok=True, mode=0o700)
        (place / _MOUNT).mkdir(exist_ok=True, mode=0o700)
        self._crash("volume:folder")
        new = place / _NEW
        new.unlink(missing_ok=True)
        _copy_sparse(template, new)
        if self._reserve:
            self._extend(new, size)
        self._crash("volume:copied")
        new.rename(place / _DISK)
        self._crash("volume:made")

    def _mount(self, place: Path, *, fresh: bool) -> None:
        disk, target = place / _DISK, place / _MOUNT
        if mounts.mounted(target):
            if fresh or _full_grown(disk):
                return
            mounts.unmount(target)  # it could not grow while it was mounted
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not fresh and not _full_grown(disk) and mounts.let_go(disk):
            _check(disk)
            run(["resize2fs", str(disk)], timeout_s=PROGRAM_TIMEOUT_S)
        try:
            mounts.mount(disk, target, fresh=fresh, discard=not self._reserve)
        except OSError as error:
            if error.errno != EUCLEAN:
                raise
            _check(disk)
            mounts.mount(disk, target, fresh=False, discard=not self._reserve)

    def _grow(self, place: Path, size_bytes: int) -> None:
        disk, wanted = place / _DISK, _rounded(size_bytes)
        if wanted <= disk.stat().st_size:
            return
        self._extend(disk, wanted)
        self._crash("volume:extended")
        if mounts.mounted(place / _MOUNT) and (device := mounts.attached(disk)) is not None:
            mounts.refresh_size(device)
            _grow_online(device)

    def _extend(self, disk: Path, size: int) -> None:
        with disk.open("r+b") as file:
            if not self._reserve:
                os.truncate(file.fileno(), size)
                return
            host = os.statvfs(disk)
            if (
                size - os.fstat(file.fileno()).st_blocks * 512 > host.f_bavail * host.f_frsize
            ):  # else the kernel takes what there is
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            os.posix_fallocate(file.fileno(), 0, size)

    def _template(self, size: int) -> Path:
        """An empty file system of that size, made once."""
        template = self._folder / f"template-{size}.ext4"
        if template.exists():
            return template
        with locked(self._folder / f"template-{size}.lock"):
            if not template.exists():
                new = template.with_suffix(".new")
                new.unlink(missing_ok=True)
                with new.open("xb") as file:
                    os.truncate(file.fileno(), size)
                journal = ["-J", f"size={JOURNAL_MIB}"] if size >= JOURNAL_FROM_BYTES else []
                extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
                # Without resize_inode a template is a tenth; it grows all the same (meta_bg).
                features = "^resize_inode"
                make = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", *journal, "-O", features, "-E", extended]
                run([*make, str(new)], timeout_s=PROGRAM_TIMEOUT_S)
                new.rename(template)
        return template


def _rounded(size_bytes: int) -> int:
    return size_bytes // _ROUND * _ROUND


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _file_system_bytes(disk: Path) -> int:
    """What the file system believes its size to be, from its superblock."""
    with disk.open("rb") as file:
        block = os.pread(file.fileno(), 1024, 1024)
    low, high = struct.unpack_from("<I", block, 0x4)[0], struct.unpack_from("<I", block, 0x150)[0]
    return int((high << 32 | low) * (1024 << struct.unpack_from("<I", block, 0x18)[0]))


def _full_grown(disk: Path) -> bool:
    return _file_system_bytes(disk) > disk.stat().st_size - _ROUND


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as from_file, target.open("xb") as to_file:
        reads, writes = from_file.fileno(), to_file.fileno()
        size = os.fstat(reads).st_size
        os.truncate(writes, size)
        position = 0
        while position < size:
            try:
                position = os.lseek(reads, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == ENXIO:  # holes only from here on
                    return
                raise
            end = os.lseek(reads, position, os.SEEK_HOLE)
            while position < end:
                position += os.copy_file_range(reads, writes, end - position, position, position)


def _check(disk: Path) -> None:
    repaired, reboot_advised = 1, 2
    run(["e2fsck", "-f", "-p", str(disk)], good=(0, repaired, repaired | reboot_advised), timeout_s=PROGRAM_TIMEOUT_S)


def _grow_online(device: Path) -> None:
    """What this needs (CAP_SYS_RESOURCE) not every root has; then the file system grows when it is mounted next."""
    try:
        run(["resize2fs", str(device)], timeout_s=PROGRAM_TIMEOUT_S)
    except HostFailed as error:
        if "Permission denied" not in error.detail:
            raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {ENOSPC, EDQUOT}:
            raise NoCapacity("The disk of the machine that runs VMs is full. Delete workspaces, or give it more room.") from error
        raise HostFailed(f"A VM's volume could not be made ready ({error.strerror}). Run `ff-cloud doctor`.") from error

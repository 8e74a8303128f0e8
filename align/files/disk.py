"""Writing where the disk may be full, read-only or gone: nothing half written stays, and the error
says where, how much room there is, how much is needed, and how to go on.

Whoever writes raises what it likes: Python an OSError, safetensors an error of its own with the
system's words in it, datasets one that was caused by the other. So the number is looked for.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rich.filesize import decimal

from align.terminal.again import again

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BARRED = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENOTDIR,
    errno.EISDIR,
)

OURS = ("align", "data", "rewards")


class FolderError(RuntimeError):
    """A run folder that cannot be used as asked; the message says what to type instead."""


@contextmanager
def writing(folder: Path, *, needed: int | None = None, half: Path | None = None) -> Iterator[None]:
    """Inside, what the disk of `folder` refuses raises FolderError.

    needed: bytes to be written, where that is known. half: a file or folder that counts for nothing
    until it is renamed; it is removed where anything at all goes wrong.
    """
    try:
        yield
    except Exception as error:
        if half is not None:
            drop(half)
        said = refused(error, folder, needed=needed)
        if said is None:
            raise
        raise FolderError(f"{said}, then {again()}") from error


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to be written that is there whole, and on disk, or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path.parent, half=partial):
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def drop(half: Path) -> None:
    """Remove what was half written, as far as the disk lets."""
    if half.is_dir():
        shutil.rmtree(half, ignore_errors=True)
    with suppress(OSError):  # not there, or on a disk that has become read-only
        half.unlink(missing_ok=True)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    absolute = folder.absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written to a folder, None where it can: found by writing, as a mode says
    nothing of read-only disks and quotas.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None


def refused(error: BaseException, folder: Path, *, needed: int | None = None) -> str | None:
    """In words, that a disk refused to be written to, and what to do; None for another error, and
    for one of this project's own, which has its words already.
    """
    if type(error).__module__.partition(".")[0] in OURS:
        return None
    number = _number(error)
    if number in FULL:
        return f"{_room(_place(error, folder), number, needed)}: make room there"
    if number in BARRED and (place := _inside(error, folder)) is not None:
        return (
            f"{place} cannot be written ({os.strerror(number)}): make it writable, or choose "
            "another folder with --out"
        )
    return None


def _room(place: Path, number: int, needed: int | None) -> str:
    """How full it is. A quota and a limit of the shell's leave the disk itself with room."""
    disk = os.statvfs(existing(place))
    words = f"no room left in {place} ({os.strerror(number)}): "
    words += f"{decimal(disk.f_bavail * disk.f_frsize)} free"
    if needed is not None:
        words += f", {decimal(needed)} needed"
    if number == errno.ENOSPC and disk.f_files and not disk.f_favail:
        words += ", and no more files can be made (no inodes)"
    return words


def _number(error: BaseException) -> int | None:
    """The system's number of an error or of what caused it."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, OSError) and one.errno is not None:
            return one.errno
        if found := re.search(r"\(os error (\d+)\)", str(one)):
            return int(found[1])
        if os.strerror(errno.ENOSPC) in str(one):
            return errno.ENOSPC
        one = one.__cause__
    return None


def _place(error: BaseException, folder: Path) -> Path:
    """Where there was no room: the folder of the file, where the error names one."""
    named = _named(error)
    return named[0].parent if named else folder


def _inside(error: BaseException, folder: Path) -> Path | None:
    """The file or folder that could not be written, where it is not somewhere else altogether."""
    named = _named(error)
    if not named:  # a call that was not permitted may have nothing to do with files
        return None if isinstance(error, PermissionError) else folder
    return next((path for path in named if path.is_relative_to(folder.absolute())), None)


def _named(error: BaseException) -> list[Path]:
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    return [Path(name).absolute() for name in names if isinstance(name, str)]

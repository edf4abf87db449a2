"""Whole files or none: how everything the library saves reaches the disk.

A file is written under another name, pushed to the disk, and only then renamed, so a
reader sees the old content or the new and never a half. A process killed in between
may leave its temporary file (`.write-*.tmp`), which nothing ever reads. Left out:
locks, so two writers of one path are both safe and the last rename wins.
"""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PROJECT = Path(__file__).parents[1]  # where book/, data/ and runs/ are


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Put `content` (text as UTF-8, line ends kept) at `path`, whole or not at all.

    Raises OSError with `path` in it; the old file is then as it was and no temporary
    file stays.
    """
    with open_atomically(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A new file to write piece by piece, which is at `path` once the block is done.

    When the block or the disk fails, the old file is as it was and no temporary file
    stays; what the disk raises has `path` in it. The steps are those of the POSIX
    manual: write, fsync, rename, fsync.
    """
    path = Path(path)
    temporary = path.parent / f".write-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    bring_to_disk(path.parent)


def bring_to_disk(path: str | os.PathLike[str]) -> None:
    """Push a file's content, or a folder's renames, to the disk, where that works.

    Windows opens no folder, and some network disks cannot do it: the file is whole
    all the same, so neither is an error. A disk that fails is: raises OSError.
    """
    folder = os.path.isdir(path)
    if folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def digest(data: bytes) -> str:
    """The SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of the file at `path`, read a megabyte at a time."""
    running = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            running.update(block)
    return running.hexdigest()

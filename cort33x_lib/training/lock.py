"""One writer at a time: a lock on a run's folder that dies with its holder.

The lock is the system's own, on an open file, so it is gone when its process is,
however that ended; the file stays and means nothing. Readers need no lock.
Left out: disks shared by several machines that do not carry locks across.
"""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

FAR = 1 << 30  # the byte that Windows locks; nobody can read a locked one


class LockedError(RuntimeError):
    """Another process, or this one, is writing to the run already."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Be the only one who writes to a run's folder while the block lasts.

    Raises LockedError, which names the holder, at once when there is one.
    """
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            take(handle)
        except OSError:
            raise LockedError(f"{folder} is in use by {holder(folder)}") from None
        me = {"process": os.getpid(), "machine": platform.node()}
        me["since"] = datetime.now(UTC).isoformat(timespec="seconds")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(me).encode("utf-8"))
        yield
    finally:
        os.close(handle)  # which lets go of the lock


def take(handle: int) -> None:
    """Lock an open file, or raise OSError at once."""
    if os.name == "nt":
        import msvcrt

        os.lseek(handle, FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(folder: Path) -> str:
    """Who holds the lock, as a sentence says it."""
    for _ in range(50):  # it may have taken the lock and not written its name yet
        with suppress(OSError, ValueError, KeyError, TypeError):
            it = json.loads((folder / "lock").read_text(encoding="utf-8"))
            who = f"process {it['process']} on {it['machine']} since {it['since']}"
            if it["process"] == os.getpid():
                return f"{who}, which is this one: close the training that it began"
            if it["machine"] != platform.node() or runs(it["process"]):
                return who
        time.sleep(0.01)
    return "another process"


def runs(process: int) -> bool:
    """Whether a process of this machine is there; Windows cannot be asked so simply."""
    if os.name == "posix":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's
    return True

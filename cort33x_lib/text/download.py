"""Files from the network: whole and as published, or an error and nothing kept.

A download grows in a folder of its own under a name that no other process uses, is
pushed to the disk, compared with its size and SHA-256, and then renamed. A receipt
beside the file says what it was, and is compared with it at every use. What breaks off
is kept and goes on at the next call, if the server proves that the file is still the
same. The steps are those of RFC 9110, section 14. Left out: archives.
"""

import glob
import json
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from tqdm.auto import tqdm

from cort33x_lib.files import PROJECT, bring_to_disk, sha256_of, write_atomically
from cort33x_lib.text.connection import Answer, DownloadError, Interrupted, asked

DOWNLOADS = PROJECT / "runs" / "downloads"
LIMIT = 4_000_000_000  # bytes
NAME = re.compile(r"\w[\w.-]{0,150}")


class ChangedFile(DownloadError):
    """What came is not what was published, or not what came the last time."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a download; the numbers are bytes and seconds."""

    address: str
    size: int | None
    sha256: str | None
    first: int | None
    separator: str
    limit: int
    timeout: float


def fetch(
    address: str,
    folder: str | os.PathLike[str] = DOWNLOADS,
    name: str = "",
    size: int | None = None,
    sha256: str = "",
    first: int | None = None,
    separator: str = "\n",
    limit: int = LIMIT,
    timeout: float = 30.0,
) -> Path:
    """The path in `folder` of the file at `address`, downloaded if it is not there.

    `size` and `sha256` are those published for the file. With `first`, only that many
    bytes, cut after their last `separator`. No more than `limit` bytes are taken, and
    a server that sends nothing for `timeout` seconds is given up. Raises DownloadError
    (Offline where there is no connection), OSError for a disk that cannot be written.
    """
    folder, name = Path(folder), name or urlsplit(address).path.rpartition("/")[2]
    if not NAME.fullmatch(name):
        raise ValueError(f"expected the name of a file, got {name!r}: give one")
    if first is not None:
        name, size, sha256 = f"first-{first}-{name}", None, ""
    folder.mkdir(parents=True, exist_ok=True)
    path, receipt = folder / name, folder / f"{name}.json"
    known = _read(receipt)
    if sha256 or known.get("address") != address:
        known = {}  # what is published counts more than what came the last time
    wanted = Wanted(address, size, sha256, first, separator, limit, timeout)
    pinned = replace(
        wanted, size=size or known.get("bytes"), sha256=sha256 or known.get("sha256")
    )
    if pinned.sha256 and fault_of(path, pinned.size, pinned.sha256) is None:
        return path
    part = folder / f".{name}-{os.getpid()}-{secrets.token_hex(6)}.part"
    _take_over(part, name)
    try:
        about = _complete(pinned, part)
        write_atomically(receipt, json.dumps(about, indent=1) + "\n")
        os.replace(part / "data", path)
        bring_to_disk(folder)
    except (Interrupted, KeyboardInterrupt):
        if _read(part / "about.json").get("validator") or pinned.sha256:
            os.replace(part, folder / f".{name}-free-{secrets.token_hex(6)}.part")
        raise
    except ChangedFile as error:
        if pinned != wanted:
            raise ChangedFile(
                f"{error}; to take it as it is, delete {receipt}"
            ) from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def fault_of(path: Path, size: int | None, sha256: str | None) -> str | None:
    """How a file differs from the size and hash that it should have, if it does."""
    if not path.is_file():
        return "the file is missing"
    if size is not None and path.stat().st_size != size:
        return f"expected {size} bytes, got {path.stat().st_size}"
    if sha256 and (found := sha256_of(path)) != sha256.lower():
        return f"expected the SHA-256 {sha256}, got {found}"
    return None


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _take_over(part: Path, name: str) -> None:
    """Make the folder `part`, of one that nobody works on any more if there is one."""
    for old in sorted(part.parent.glob(f".{glob.escape(name)}-*-*.part")):
        try:
            owner = psutil.Process(int(old.name.split("-")[-2]))
            if owner.create_time() <= old.stat().st_mtime:
                continue
        except (ValueError, psutil.Error, OSError):
            pass  # it says "free", or its process is gone
        with suppress(OSError):  # another process may be faster
            os.replace(old, part)
            os.utime(part)
            return
    part.mkdir()


def _complete(wanted: Wanted, part: Path) -> dict:
    """Bring the data in `part` to what is wanted; what to say of it in the receipt."""
    data = part / "data"
    while True:
        resumed = _receive(wanted, part)
        if resumed is None:
            continue
        with open(data, "rb") as file:
            head = file.read(512).lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html")):
            raise DownloadError(f"{wanted.address}: expected data, got a web page")
        if wanted.first is not None and data.stat().st_size == wanted.first:
            _cut(wanted, data)
        fault = fault_of(data, wanted.size, wanted.sha256)
        if fault is None:
            about = {"bytes": data.stat().st_size, "sha256": sha256_of(data)}
            return _read(part / "about.json") | about
        if not resumed:
            raise ChangedFile(f"{wanted.address}: {fault}")
        data.unlink()  # halves of two files: once more from the start


def _receive(wanted: Wanted, part: Path) -> bool | None:
    """Fetch what the data lacks. True if it was resumed, None if it cannot be."""
    address, data, about = wanted.address, part / "data", _read(part / "about.json")
    have = data.stat().st_size if data.exists() else 0
    if about.get("address") != address or not (about["validator"] or wanted.sha256):
        have = 0
    if have and have == about.get("end"):
        return True
    last = "" if wanted.first is None else wanted.first - 1
    headers = {"Range": f"bytes={have}-{last}"} if have or last else {}
    if have and about["validator"]:
        headers["If-Range"] = about["validator"]
    with asked(address, headers, wanted.timeout) as answer:
        ends = [end for end in (answer.total, wanted.first) if end is not None]
        told = {
            "address": address,
            "validator": answer.validator,
            "total": answer.total,
            "end": min(ends, default=None),
        }
        resumed = have > 0 and answer.start == have and told == about
        if have and not resumed and answer.start:
            data.unlink()
            return None
        _check(answer, wanted, told["end"], have if resumed else 0, part)
        write_atomically(part / "about.json", json.dumps(told))
        have = _write(answer, data, have if resumed else 0, told["end"], wanted.limit)
    if answer.total is not None and have < told["end"]:
        raise Interrupted(
            f"{address}: it broke off after {have} of {told['end']} bytes"
        )
    proven = answer.marks_its_end or wanted.size or wanted.sha256 or have == told["end"]
    if not proven:
        raise DownloadError(f"{address}: no length is given, so no end can be proven")
    if have == 0:
        raise DownloadError(f"{address}: expected a file, got nothing")
    return resumed


def _check(answer: Answer, wanted: Wanted, end: int | None, have: int, part: Path):
    """Raise DownloadError for what need not even be read."""
    fault, free = None, shutil.disk_usage(part).free
    if answer.start != have:
        fault = "expected the start of the file, got another part"
    elif answer.type == "text/html":
        fault = "expected data, got a web page"
    elif (
        wanted.first is None and wanted.size and answer.total not in (None, wanted.size)
    ):
        fault = f"expected {wanted.size} bytes, the server announces {answer.total}"
    elif end is not None and end > wanted.limit:
        fault = f"expected at most {wanted.limit} bytes, the server announces {end}"
    elif end is not None and end - have > free:
        fault = f"{end - have} bytes are to come, the disk has room for {free}"
    if fault:
        raise DownloadError(f"{answer.address}: {fault}")


def _write(answer: Answer, data: Path, have: int, end: int | None, limit: int) -> int:
    """Append what comes, up to `end`; how many bytes there are then."""
    bar = tqdm(total=end, initial=have, unit="B", unit_scale=True, delay=1)
    with bar, open(data, "ab" if have else "wb") as file:
        for block in answer.blocks():
            block = block[: None if end is None else end - have]
            have += len(block)
            if have > limit:
                raise DownloadError(
                    f"{answer.address}: expected at most {limit} bytes, more came"
                )
            file.write(block)
            bar.update(len(block))
            if have == end:
                break
        file.flush()
        os.fsync(file.fileno())
    return have


def _cut(wanted: Wanted, data: Path) -> None:
    """Drop what follows the last separator."""
    content, separator = data.read_bytes(), wanted.separator.encode("utf-8")
    at = content.rfind(separator)
    if at < 0:
        raise DownloadError(
            f"{wanted.address}: no {separator!r} in {len(content)} bytes"
        )
    with open(data, "r+b") as file:
        file.truncate(at + len(separator))
        os.fsync(file.fileno())

"""Whole files or none: killed writers, full disks, the order of the system calls."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cort33x_lib.files import bring_to_disk, digest, sha256_of, write_atomically

ROOT = Path(__file__).parents[1]
WRITER = """
import sys
from cort33x_lib.files import write_atomically
path, size = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    write_atomically(path, bytes([turn % 256]) * size)
"""


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".tmp"]


@pytest.mark.parametrize("content", ["é\r\nb\n", b"\x00\xff\n", "", b""])
def test_content_arrives_byte_for_byte(tmp_path: Path, content: str | bytes) -> None:
    expected = content.encode("utf-8") if isinstance(content, str) else content
    path = tmp_path / "a folder with spaces é"
    write_atomically(path, "what was there before")
    write_atomically(path, content)
    assert path.read_bytes() == expected
    assert digest(expected) == sha256_of(path) == hashlib.sha256(expected).hexdigest()
    assert temporaries(tmp_path) == []


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_atomically(tmp_path / "whole", "x")
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "whole")]
    assert modes[0] == modes[1]


def test_sha256_of_a_file_longer_than_a_block(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2_500_000)
    write_atomically(tmp_path / "long", data)
    assert sha256_of(tmp_path / "long") == digest(data)


def test_errors_name_the_path_and_leave_nothing(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(absent, "x")
    assert caught.value.filename == str(absent)
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "folder", "x")
    assert str(tmp_path / "folder") in str(caught.value)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "text", "\ud800")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_killed_writers_leave_the_old_content_or_the_new(tmp_path: Path) -> None:
    path, size, chance = tmp_path / "file", 300_000, random.Random(7)
    write_atomically(path, b"\x00" * size)
    kills, left_over = 20, 0
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), str(size)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0.001, 0.03))
            process.kill()
        if os.name == "posix":
            assert process.returncode == -signal.SIGKILL
        content = path.read_bytes()
        assert len(content) == size and len(set(content)) == 1
        left_over += len(temporaries(tmp_path))
        for temporary in temporaries(tmp_path):
            temporary.unlink()
    print(f"{kills} kills, {left_over} of them inside a write, 0 files damaged")


def test_a_reader_never_sees_a_half(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("Windows renames nothing onto a file that is open")
    path, stop, seen = tmp_path / "file", threading.Event(), set()
    write_atomically(path, b"a" * 100_000)

    def read() -> None:
        while not stop.is_set():
            content = path.read_bytes()
            seen.add((len(content), len(set(content))))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(30):
        write_atomically(path, bytes([97 + turn % 26]) * 100_000)
    stop.set()
    for reader in readers:
        reader.join()
    assert seen == {(100_000, 1)}


def test_a_full_disk_keeps_the_old_file(small_disk: Path) -> None:
    write_atomically(small_disk / "file", b"old")
    for _ in range(20):
        with pytest.raises(OSError, match="No space left") as caught:
            write_atomically(small_disk / "file", b"x" * 2_000_000)
        assert caught.value.filename == str(small_disk / "file")
        assert [path.name for path in small_disk.iterdir()] == ["file"]
        assert (small_disk / "file").read_bytes() == b"old"
    write_atomically(small_disk / "file", b"new")
    assert (small_disk / "file").read_bytes() == b"new"


def test_a_limit_on_file_size_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("limits on file size need a Unix system")
    script = """
import resource, signal, sys
from cort33x_lib.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
write_atomically(sys.argv[1], b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomically(sys.argv[1], b"x" * 5000)
except OSError as error:
    print(error.filename)
"""
    path = tmp_path / "file"
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == str(path), done.stderr
    assert path.read_bytes() == b"old"
    assert temporaries(tmp_path) == []


def test_the_disk_has_the_file_before_its_name(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    script = "import sys; from cort33x_lib.files import write_atomically as write;"
    script += "write(sys.argv[1], 'content')"
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,rename,renameat,renameat2",
    ]
    command += [sys.executable, "-c", script, str(tmp_path / "file")]
    if subprocess.run(command, capture_output=True, cwd=ROOT).returncode != 0:
        pytest.skip("strace may not trace here")
    calls = [line.split("(")[0] for line in trace.read_text().splitlines()]
    calls = [call for call in calls if call.startswith(("fsync", "rename"))]
    assert [call[:5] for call in calls] == ["fsync", "renam", "fsync"]


def test_bring_to_disk_takes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    bring_to_disk(tmp_path / "file")
    bring_to_disk(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"x"

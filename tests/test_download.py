"""Downloads from a hostile server: right, or a clear error and nothing left behind."""

import hashlib
import json
import random
import re
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, create_connection

import pytest

from cort33x_lib.text.connection import DownloadError, Interrupted, Offline
from cort33x_lib.text.download import ChangedFile, fetch
from run import ROOT

DATA = b"".join(b"line %d\n" % n for n in range(20_000))
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = DATA.replace(b"line", b"LINE")
TAG = 'ETag: "one"'
FILE = "HTTP/1.1 200 OK"


class Handler(socketserver.BaseRequestHandler):
    """Reads one request and lets the server's `serve` do what it likes."""

    def handle(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            block = self.request.recv(4096)
            if not block:
                return
            if block.startswith(b"\x16"):  # the hello of TLS
                return self.say("HTTP/1.1 400 What?", "")
            data += block
        self.asked = data.decode("latin-1")
        self.server.requests.append(self.asked)
        with suppress(OSError):
            self.server.serve(self)

    def header(self, name: str) -> str:
        found = re.search(rf"(?im)^{name}: *(.*?)\r$", self.asked)
        return found[1] if found else ""

    def start(self) -> int:
        found = re.match(r"bytes=(\d+)-", self.header("Range"))
        return int(found[1]) if found else 0

    def say(self, *lines: str) -> None:
        self.request.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def send(self, *lines: str, body: bytes = DATA) -> None:
        self.say(*lines, "")
        self.request.sendall(body)

    def send_file(self, *lines: str, body: bytes = DATA) -> None:
        self.send(FILE, f"Content-Length: {len(body)}", *lines, body=body)

    def send_part(
        self, *lines: str, body: bytes = DATA, start: int | None = None
    ) -> None:
        start = self.start() if start is None else start
        where = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
        length = f"Content-Length: {len(body) - start}"
        self.send("HTTP/1.1 206 Partial", where, length, *lines, body=body[start:])

    def forever(self, body: bytes, pause: float = 0) -> None:
        while True:
            self.request.sendall(body)
            time.sleep(pause)

    def reset(self) -> None:
        self.request.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 20

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the other side hung up


Serve = Callable[[Handler], None]


@contextmanager
def serving(serve: Serve) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.serve, server.requests = serve, []
        server.address = f"http://127.0.0.1:{server.server_address[1]}/data.txt"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = [FILE, "Transfer-Encoding: chunked"]
LENGTH = f"Content-Length: {len(DATA)}"
REDIRECT = "HTTP/1.1 302 Found"
CALM = {"timeout": 20.0, "limit": 3_000_000}
HASTY = {"timeout": 1.0}

# What the server does, how the error begins (None where all is well), what is given.
CASES: dict[str, tuple[Serve, str | None, dict]] = {
    "a file": (lambda h: h.send_file(), None, {}),
    "a file with its hash": (lambda h: h.send_file(), None, {"sha256": SHA256}),
    "its hash in capitals": (
        lambda h: h.send_file(),
        None,
        {"sha256": SHA256.upper(), "size": len(DATA)},
    ),
    "chunks": (
        lambda h: h.send(*CHUNKED, body=chunk(DATA) + b"0\r\n\r\n"),
        None,
        {},
    ),
    "no length but a hash": (lambda h: h.send(FILE), None, {"sha256": SHA256}),
    "a part that is the whole": (lambda h: h.send_part(start=0), None, {}),
    "a redirect": (
        lambda h: (
            h.send_file()
            if "there" in h.asked
            else h.send(REDIRECT, "Location: /there", body=b"")
        ),
        None,
        {},
    ),
    "a redirect with an endless body": (
        lambda h: (
            h.send_file()
            if "there" in h.asked
            else (h.say(REDIRECT, "Location: there", ""), h.forever(b"x" * 999))
        ),
        None,
        {},
    ),
    "bytes after the length": (
        lambda h: h.send(FILE, LENGTH, body=DATA + b"more"),
        None,
        {},
    ),
    "truncated": (
        lambda h: h.send(FILE, LENGTH, body=DATA[:-1]),
        "Interrupted: it broke off after 208889 bytes",
        {},
    ),
    "truncated chunk": (
        lambda h: h.send(*CHUNKED, body=chunk(DATA)[:-9]),
        "Interrupted: it broke off",
        {},
    ),
    "no last chunk": (
        lambda h: h.send(*CHUNKED, body=chunk(DATA)),
        "Interrupted: it broke off",
        {},
    ),
    "no chunk at all": (
        lambda h: h.send(*CHUNKED),
        "Interrupted: it broke off",
        {},
    ),
    "reset midway": (
        lambda h: (h.send(FILE, LENGTH, body=DATA[:9999]), h.reset()),
        "Interrupted: it broke off",
        {},
    ),
    "wrong hash": (
        lambda h: h.send_file(body=OTHER),
        f"ChangedFile: expected the SHA-256 {SHA256}, got",
        {"sha256": SHA256},
    ),
    "truncated without a length": (
        lambda h: h.send(FILE, body=DATA[:-1]),
        "ChangedFile: expected the SHA-256",
        {"sha256": SHA256},
    ),
    "wrong length announced": (
        lambda h: h.send(FILE, LENGTH),
        "DownloadError: expected 5 bytes, the server announces 208890",
        {"size": 5},
    ),
    "wrong length not announced": (
        lambda h: h.send(*CHUNKED, body=chunk(DATA) + b"0\r\n\r\n"),
        "ChangedFile: expected 5 bytes, got 208890",
        {"size": 5},
    ),
    "no length and no hash": (
        lambda h: h.send(FILE),
        "DownloadError: no length is given",
        {},
    ),
    "a length that is no number": (
        lambda h: h.send(FILE, "Content-Length: many"),
        "DownloadError: no length is given",
        {},
    ),
    "a length below zero": (
        lambda h: h.send(FILE, "Content-Length: -5"),
        "DownloadError: no length is given",
        {},
    ),
    "too large a length": (
        lambda h: h.send(FILE, f"Content-Length: {10**15}"),
        "DownloadError: expected at most 3000000 bytes",
        {},
    ),
    "no room on the disk": (
        lambda h: h.send(FILE, f"Content-Length: {10**15}"),
        f"DownloadError: {10**15} bytes are to come, the disk",
        {"limit": 10**16},
    ),
    "endless": (
        lambda h: (h.say(FILE, ""), h.forever(DATA)),
        "DownloadError: expected at most 3000000 bytes, more",
        {},
    ),
    "endless chunks": (
        lambda h: (h.say(*CHUNKED, ""), h.forever(chunk(DATA))),
        "DownloadError: expected at most 3000000 bytes, more",
        {},
    ),
    "endless headers": (
        lambda h: (h.say(FILE), h.forever(b"X: y\r\n" * 99)),
        "DownloadError: no proper answer",
        {},
    ),
    "an endless header": (
        lambda h: (h.say(FILE), h.forever(b"X" * 9999)),
        "DownloadError: no proper answer",
        {},
    ),
    "endless chunk extensions": (
        lambda h: (h.say(*CHUNKED, ""), h.forever(b"5;" + b"x" * 9999)),
        "Interrupted: it broke off",
        {},
    ),
    "endless promises": (
        lambda h: h.forever(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        "DownloadError: no answer in time",
        HASTY,
    ),
    "slow drip": (
        lambda h: (h.say(FILE, LENGTH, ""), h.forever(b"x", 0.05)),
        "Interrupted: it broke off .* less than 1000 bytes in 1 s",
        HASTY,
    ),
    "slow drip of headers": (
        lambda h: (h.say(FILE), h.forever(b"x", 0.05)),
        "DownloadError: no answer in time",
        HASTY,
    ),
    "slow drip of a chunk's length": (
        lambda h: (h.say(*CHUNKED, ""), h.forever(b"0", 0.05)),
        "Interrupted: it broke off .* less than 1000 bytes in 1 s",
        HASTY,
    ),
    "slow drip of redirects": (
        lambda h: (h.say(REDIRECT, "Location: there"), h.forever(b"x", 0.05)),
        "DownloadError: no answer in time",
        HASTY,
    ),
    "silence": (lambda h: time.sleep(3), "DownloadError: no answer in time", HASTY),
    "silence midway": (
        lambda h: (h.send(FILE, LENGTH, body=DATA[:9999]), time.sleep(3)),
        "Interrupted: it broke off after 9999",
        HASTY,
    ),
    "closed at once": (lambda h: None, "DownloadError: no proper answer", {}),
    "reset at once": (lambda h: h.reset(), "DownloadError: no proper answer", {}),
    "no HTTP": (
        lambda h: h.request.sendall(DATA),
        "DownloadError: no proper answer",
        {},
    ),
    "bad status": (
        lambda h: h.send("HTTP/1.1 abc OK"),
        "DownloadError: no proper answer",
        {},
    ),
    "NULs": (
        lambda h: h.request.sendall(bytes(9999)),
        "DownloadError: no proper answer",
        {},
    ),
    "redirect to a file": (
        lambda h: h.send(REDIRECT, "Location: file:///etc/passwd", body=b""),
        "DownloadError: expected http or https, got 'file:///etc/passwd'",
        {},
    ),
    "redirect to FTP": (
        lambda h: h.send(REDIRECT, "Location: ftp://127.0.0.1/x", body=b""),
        "DownloadError: expected http or https, got 'ftp:",
        {},
    ),
    "redirect to data": (
        lambda h: h.send(REDIRECT, "Location: data:text/plain,x", body=b""),
        "DownloadError: expected http or https, got 'data:",
        {},
    ),
    "redirect to no address": (
        lambda h: h.send(REDIRECT, "Location: http://[::1", body=b""),
        "DownloadError: no proper answer",
        {},
    ),
    "redirect with a line end": (
        lambda h: h.send(REDIRECT, "Location: /a b\x01", body=b""),
        "DownloadError: no proper answer",
        {},
    ),
    "redirect beyond ASCII": (
        lambda h: h.send(REDIRECT, "Location: /ä", body=b""),
        "DownloadError: no proper answer",
        {},
    ),
    "redirect to a dead port": (
        lambda h: h.send(REDIRECT, "Location: http://127.0.0.1:1/", body=b""),
        "Offline: .* cannot be reached",
        {},
    ),
    "redirect to nowhere": (
        lambda h: h.send(REDIRECT, body=b""),
        "DownloadError: expected the file, got '302 Found'",
        {},
    ),
    "redirect loop": (
        lambda h: h.send(REDIRECT, "Location: /data.txt", body=b""),
        "DownloadError: expected the file, got '302 Found'",
        {},
    ),
    "a web page": (
        lambda h: h.send_file("Content-Type: text/html; charset=utf-8"),
        "DownloadError: expected data, got a web page",
        {},
    ),
    "a web page in disguise": (
        lambda h: h.send_file(body=b"\n<!DOCTYPE HTML><html>Log in"),
        "DownloadError: expected data, got a web page",
        {},
    ),
    "not found": (
        lambda h: h.send("HTTP/1.1 404 Not Found"),
        "DownloadError: expected the file, got '404 Not Found'",
        {},
    ),
    "server error": (
        lambda h: h.send("HTTP/1.1 500 Oh"),
        "DownloadError: expected the file, got '500 Oh'",
        {},
    ),
    "server busy": (
        lambda h: h.send("HTTP/1.1 503 Later"),
        "DownloadError: expected the file, got '503 Later'",
        {},
    ),
    "no content": (
        lambda h: h.send("HTTP/1.1 204 None"),
        "DownloadError: expected the file, got '204 None'",
        {},
    ),
    "compressed": (
        lambda h: h.send_file("Content-Encoding: gzip"),
        "DownloadError: expected plain content, got gzip",
        {},
    ),
    "another part": (
        lambda h: h.send_part(start=9),
        "DownloadError: expected the start of the file, got another",
        {},
    ),
    "a part of what": (
        lambda h: h.send("HTTP/1.1 206 Partial", "Content-Range: bytes */*", LENGTH),
        "DownloadError: expected the start of the file, got another",
        {},
    ),
    "no such range": (
        lambda h: h.send("HTTP/1.1 416 No", LENGTH),
        "DownloadError: expected the start of the file, got another",
        {},
    ),
    "empty": (
        lambda h: h.send_file(body=b""),
        "DownloadError: expected a file, got nothing",
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_server_gives_the_file_or_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # not for this machine
    serve, fault, given = CASES[name]
    with serving(serve) as server:
        before = time.monotonic()
        if fault is None:
            path = fetch(server.address, tmp_path, **CALM | given)
            assert path.read_bytes() == DATA
            names = {found.name for found in tmp_path.rglob("*")}
            assert names == {"data.txt", "data.txt.json"}
            asked = len(server.requests)
            assert fetch(server.address, tmp_path, **CALM | given) == path
            assert len(server.requests) == asked
        else:
            kind, _, words = fault.partition(": ")
            with pytest.raises(DownloadError, match=words) as caught:
                fetch(server.address, tmp_path, **CALM | given)
            assert type(caught.value).__name__ == kind
            assert server.address in str(caught.value)
            assert list(tmp_path.rglob("*")) == []
        assert time.monotonic() - before < 60, "it hung"


def broken_off(tmp_path: Path, server: Server, *lines: str, **given: object) -> None:
    """A first download that gets half of the file and keeps it."""
    server.serve = lambda h: h.send(FILE, LENGTH, *lines, body=DATA[:100_000])
    with pytest.raises(Interrupted, match="broke off after 100000 bytes"):
        fetch(server.address, tmp_path, **CALM | given)
    (kept,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.data\.txt-free-\w+\.part", kept.name)
    assert sorted(path.name for path in kept.iterdir()) == ["about.json", "data"]
    assert (kept / "data").read_bytes() == DATA[:100_000]
    server.requests.clear()


DATE = "Last-Modified: Tue, 01 Jul 2025 10:00:00 GMT"
# The header of the first answer, what is served then, and what must come of it.
RESUMED: dict[str, tuple[str, Serve, bytes, int]] = {
    "by its ETag": (TAG, lambda h: h.send_part(TAG), DATA, 1),
    "by its date": (DATE, lambda h: h.send_part(DATE), DATA, 1),
    "range ignored": (TAG, lambda h: h.send_file(TAG), DATA, 1),
    "changed, and says so": (TAG, lambda h: h.send_file(body=OTHER), OTHER, 1),
    "changed, with a part": (
        TAG,
        lambda h: (h.send_part if h.start() else h.send_file)(
            'ETag: "two"', body=OTHER
        ),
        OTHER,
        2,
    ),
    "changed, with another length": (
        TAG,
        lambda h: (h.send_part if h.start() else h.send_file)(TAG, body=OTHER + b"x"),
        OTHER + b"x",
        2,
    ),
    "no mark on the part": (
        TAG,
        lambda h: h.send_part() if h.start() else h.send_file(),
        DATA,
        2,
    ),
    "another part": (
        TAG,
        lambda h: h.send_part(TAG, start=50_000) if h.start() else h.send_file(TAG),
        DATA,
        2,
    ),
    "no such range": (
        TAG,
        lambda h: h.send("HTTP/1.1 416 No") if h.start() else h.send_file(TAG),
        DATA,
        2,
    ),
}


@pytest.mark.parametrize("name", RESUMED)
def test_what_broke_off_goes_on_where_it_can(name: str, tmp_path: Path) -> None:
    mark, serve, content, requests = RESUMED[name]
    with serving(serve) as server:
        broken_off(tmp_path, server, mark)
        server.serve = serve
        path = fetch(server.address, tmp_path, **CALM)
        assert path.read_bytes() == content
        assert len(server.requests) == requests
        assert "Range: bytes=100000-\r\n" in server.requests[0]
        assert f"If-Range: {mark.partition(': ')[2]}\r\n" in server.requests[0]
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "data.txt",
        "data.txt.json",
    ]


def test_halves_of_two_files_are_no_file(tmp_path: Path) -> None:
    def lie(handler: Handler) -> None:
        handler.send_part(TAG, body=OTHER)

    def lie_once(handler: Handler) -> None:
        lie(handler) if handler.start() else handler.send_file(TAG)

    with serving(lie) as server:
        for mark in (TAG, "X: no mark"):
            broken_off(tmp_path, server, mark, sha256=SHA256)
            server.serve = lie_once
            path = fetch(server.address, tmp_path, sha256=SHA256, **CALM)
            assert path.read_bytes() == DATA and len(server.requests) == 2
            path.unlink()
            path.with_name("data.txt.json").unlink()
        broken_off(tmp_path, server, TAG, sha256=SHA256)
        server.serve = lie
        with pytest.raises(ChangedFile, match="expected the SHA-256"):
            fetch(server.address, tmp_path, sha256=SHA256, **CALM)
        assert list(tmp_path.iterdir()) == []


def test_it_breaks_off_again_and_again_and_comes_to_its_end(tmp_path: Path) -> None:
    def serve(handler: Handler) -> None:
        start = handler.start()
        status = "HTTP/1.1 206 Partial" if start else FILE
        where = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        length = f"Content-Length: {len(DATA) - start}"
        body = DATA[start : start + random.Random(start).randrange(9, 50_000)]
        handler.send(status, where, length, TAG, body=body)

    with serving(serve) as server:
        for _ in range(50):
            with suppress(Interrupted):
                path = fetch(server.address, tmp_path, **CALM)
                break
        assert path.read_bytes() == DATA and len(server.requests) > 3


SCRIPT = """
import sys
from cort33x_lib.text.download import fetch
print("begun", flush=True)
path = fetch(sys.argv[1], sys.argv[2], timeout=20)
print(path.stat().st_size, flush=True)
"""


def process(server: Server, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, server.address, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on(tmp_path: Path) -> None:
    half = threading.Event()

    def serve(handler: Handler) -> None:
        if handler.start():
            handler.send_part(TAG)
        else:
            handler.send(FILE, LENGTH, TAG, body=DATA[:150_000])
            half.wait(60)

    with serving(serve) as server, process(server, tmp_path) as first:
        deadline = time.monotonic() + 60
        while sum(p.stat().st_size for p in tmp_path.rglob("data")) < 100_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.kill()
        first.wait()
        half.set()
        path = fetch(server.address, tmp_path, **CALM)
        assert path.read_bytes() == DATA
        assert re.search(r"Range: bytes=1[0-5]\d{4}-", server.requests[-1])
    assert len(list(tmp_path.iterdir())) == 2


def test_two_processes_do_not_hinder_each_other(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=60)

    def serve(handler: Handler) -> None:
        handler.say(FILE, LENGTH, TAG, "")
        handler.request.sendall(DATA[:100_000])
        both.wait()  # neither has more than this while the other begins
        handler.request.sendall(DATA[100_000:])

    with serving(serve) as server:
        with process(server, tmp_path) as one, process(server, tmp_path) as other:
            said = [one.communicate()[0], other.communicate()[0]]
        assert said == [f"begun\n{len(DATA)}\n"] * 2
        assert not any("Range" in asked for asked in server.requests)
    assert (tmp_path / "data.txt").read_bytes() == DATA
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_kept_is_checked_at_every_use(tmp_path: Path) -> None:
    with serving(lambda h: h.send_file(TAG)) as server:
        path = fetch(server.address, tmp_path, **CALM)
        for damage in (DATA[:-1], OTHER, b""):
            path.write_bytes(damage)
            assert fetch(server.address, tmp_path, **CALM).read_bytes() == DATA
        assert len(server.requests) == 4
        server.serve = lambda h: h.send_file(body=OTHER)
        assert fetch(server.address, tmp_path, **CALM) == path
        path.unlink()
        with pytest.raises(ChangedFile, match="to take it as it is, delete .*json"):
            fetch(server.address, tmp_path, **CALM)
        receipt = tmp_path / "data.txt.json"
        assert json.loads(receipt.read_text())["sha256"] == SHA256
        for broken in ("", "[]", "\x00", "{", '{"address": 5}'):
            receipt.write_text(broken)
            assert fetch(server.address, tmp_path, **CALM).read_bytes() == OTHER
        with pytest.raises(
            ChangedFile, match=f"expected the SHA-256 {SHA256}"
        ) as caught:
            fetch(server.address, tmp_path, sha256=SHA256, **CALM)
        assert "delete" not in str(caught.value)
        longer = OTHER + b"x"  # a new edition, published with its new hash
        server.serve = lambda h: h.send_file(body=longer)
        new = hashlib.sha256(longer).hexdigest()
        assert (
            fetch(server.address, tmp_path, sha256=new, **CALM).read_bytes() == longer
        )


def test_what_is_kept_needs_no_server(tmp_path: Path) -> None:
    with serving(lambda h: h.send_file()) as server:
        address = server.address
        path = fetch(address, tmp_path, **CALM)
    assert fetch(address, tmp_path, **CALM).read_bytes() == DATA
    path.write_bytes(OTHER)
    with pytest.raises(Offline, match=f"{address} cannot be reached .* as `file`"):
        fetch(address, tmp_path, **CALM)
    assert path.read_bytes() == OTHER  # the error does not destroy what is there


@pytest.mark.parametrize("serve", [Handler.send_file, Handler.send_part])
def test_the_first_bytes_end_at_a_separator(serve: Serve, tmp_path: Path) -> None:
    with serving(lambda h: serve(h, TAG)) as server:
        path = fetch(server.address, tmp_path, first=1000, sha256=SHA256, **CALM)
        assert path.name == "first-1000-data.txt"
        content = path.read_bytes()
        assert DATA.startswith(content) and content.endswith(b"\n")
        assert 990 < len(content) <= 1000
        again = fetch(server.address, tmp_path, first=1000, **CALM)
        assert again == path and len(server.requests) == 1
        assert "Range: bytes=0-999\r\n" in server.requests[0]
        path = fetch(server.address, tmp_path, first=500, separator="7\n", **CALM)
        assert path.read_bytes().endswith(b"7\n")
        path = fetch(server.address, tmp_path, first=10**6, **CALM)
        assert path.read_bytes() == DATA
        with pytest.raises(DownloadError, match="no b'<end>' in 9 bytes"):
            fetch(server.address, tmp_path, first=9, separator="<end>", **CALM)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_full_disk_keeps_nothing(small_disk: Path) -> None:
    with serving(lambda h: h.send_file(TAG, body=DATA * 8)) as server:
        with pytest.raises(DownloadError, match="bytes are to come, the disk has room"):
            fetch(server.address, small_disk, **CALM)
        server.serve = lambda h: (h.say(*CHUNKED, TAG, ""), h.forever(chunk(DATA)))
        with pytest.raises(OSError, match="No space left"):
            fetch(server.address, small_disk, **CALM)
        assert list(small_disk.iterdir()) == []
        server.serve = lambda h: h.send_file()
        assert fetch(server.address, small_disk, **CALM).read_bytes() == DATA


def test_without_a_connection_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("http://127.0.0.1:1/x.txt", "https://no-such-host.invalid/x.txt"):
        with pytest.raises(Offline) as caught:
            fetch(address, tmp_path, timeout=5)
        assert address in str(caught.value) and "as `file`" in str(caught.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Offline, match="HF_HUB_OFFLINE is set"):
        fetch("https://huggingface.co/datasets/x.txt", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_fails_at_tls_is_refused(tmp_path: Path) -> None:
    with serving(Handler.send_file) as server:  # it speaks no TLS at all
        address = server.address.replace("http:", "https:")
        with pytest.raises(DownloadError, match="no safe connection"):
            fetch(address, tmp_path, timeout=5)


def test_addresses_and_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    for address in ("file:///etc/passwd", "ftp://a/b", "/etc/passwd", "http:///x"):
        with pytest.raises(DownloadError, match="expected http or https"):
            fetch(address, tmp_path, name="x")
    for name in ("", "..", ".x", "a/b", "a\\b", "a\nb", "x" * 999):
        with pytest.raises(ValueError, match="expected the name of a file"):
            fetch("http://127.0.0.1:1/", tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


def test_the_server_of_these_tests_serves() -> None:
    with serving(lambda h: h.send_file()) as server:
        port = server.server_address[1]
        with create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with client.makefile("rb") as answer:
                assert answer.read().endswith(DATA)

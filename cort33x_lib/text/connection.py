"""Asking a server for a file, with nothing trusted and an end to every wait.

Only http and https, redirects followed by hand (none to another scheme, none from https
to http), no compressed content, and a watch that cuts a connection on which too little
arrives, because a timeout of the socket alone starts again with every byte. Left out:
cookies, passwords, and trying again.
"""

import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib import request
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit

from cort33x_lib.text.corpus import CorpusError

BLOCK = 1 << 16
SLOWEST = 1000  # bytes that must arrive in every `timeout` seconds
REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 5
RANGE = re.compile(r"bytes (\d{1,15})-\d{1,15}/(\d{1,15})")


class DownloadError(CorpusError):
    """A file that could not be had: its address, what went wrong, what to do."""


class Offline(DownloadError):
    """No connection to the server of the file."""


class Interrupted(DownloadError):
    """The connection broke off, or too little came, in the middle of the file."""


class Answer:
    """What a server sends: where it starts, of how many bytes in all, and the bytes."""

    def __init__(self, address: str, response: HTTPResponse, watch: "_Watch"):
        self.address, self._response, self._watch = address, response, watch
        header = response.headers.get
        self.type = response.headers.get_content_type()
        etag = header("ETag", "")  # a weak one does not prove that bytes are the same
        self.validator = etag if etag[:1] == '"' else header("Last-Modified", "")
        self.marks_its_end = bool(response.chunked)
        self.partial = response.status == 206
        self.start, self.total = 0, response.length
        if response.status != 200:
            found = RANGE.fullmatch(header("Content-Range", ""))
            self.start, self.total = (
                (int(found[1]), int(found[2])) if found else (-1, 0)
            )

    def blocks(self) -> Iterator[bytes]:
        """The bytes as they come. Raises Interrupted when they end too early."""
        expected, came, error = self._response.length, 0, None
        try:
            while block := self._response.read1(BLOCK):
                came += len(block)
                self._watch.received += len(block)
                yield block
        except (OSError, HTTPException, ValueError) as caught:
            error = caught
        if self._watch.cut:
            reason = f"less than {SLOWEST} bytes in {self._watch.timeout:g} seconds"
        elif error:
            reason = repr(error)
        elif expected is not None and came < expected:
            reason = "the connection was closed"
        else:
            return
        raise Interrupted(
            f"{self.address}: it broke off after {came} bytes: {reason}"
        ) from error


@contextmanager
def asked(address: str, headers: Mapping[str, str], timeout: float) -> Iterator[Answer]:
    """The answer to a request for `address`: 200, 206, or 416 (no such range).

    Raises Offline, or DownloadError for any other answer.
    """
    here, watch = address, _Watch(timeout)
    try:
        for _ in range(MOST_REDIRECTS + 1):
            response = _response(address, here, headers, timeout, watch)
            if response.status not in REDIRECTS:
                break
            response.close()
            there = response.headers.get("Location", "")
            with suppress(ValueError):
                there = urljoin(here, there)
            if here.startswith("https:") and not there.startswith("https:"):
                raise DownloadError(f"{address}: redirected to {there!r}, without TLS")
            here = there
        with closing(response):
            if response.status not in (200, 206, 416):
                said = f"{response.status} {response.reason}"
                raise DownloadError(f"{address}: expected the file, got {said!r}")
            coding = response.headers.get("Content-Encoding", "identity")
            if coding.lower() != "identity":
                raise DownloadError(f"{address}: expected plain content, got {coding}")
            yield Answer(address, response, watch)
    finally:
        watch.over.set()


def _response(
    address: str, here: str, headers: Mapping[str, str], timeout: float, watch: "_Watch"
) -> HTTPResponse:
    if not re.match("https?://[^/]", here):
        raise DownloadError(f"{address}: expected http or https, got {here!r}")
    opener = request.OpenerDirector()
    headers = {**headers, "Accept-Encoding": "identity", "User-Agent": "cort33x"}
    try:
        host = urlsplit(here).hostname or ""
        if _forbidden(host):
            raise URLError("HF_HUB_OFFLINE is set")
        local = host in ("127.0.0.1", "localhost", "::1")
        opener.add_handler(request.ProxyHandler({} if local else None))
        opener.add_handler(_Handler(watch))
        response = opener.open(request.Request(here, headers=headers), timeout=timeout)
        if watch.cut:  # what was read of the headers looks like the whole of them
            response.close()
            raise TimeoutError
        return response
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise DownloadError(f"{address}: no safe connection: {error}") from error
        raise Offline(
            f"{address} cannot be reached ({error.reason}): try again when there is a"
            " connection, or get it on another machine and give the path as `file`"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        late = watch.cut or isinstance(error, TimeoutError)
        reason = "no answer in time" if late else f"no proper answer: {error!r}"
        raise DownloadError(f"{address}: {reason}") from error


def _forbidden(host: str) -> bool:
    asked_for = os.environ.get("HF_HUB_OFFLINE", "").upper()
    return asked_for in ("1", "ON", "YES", "TRUE") and host.endswith("huggingface.co")


class _Watch(threading.Thread):
    """Cuts the connection unless SLOWEST bytes are received in every `timeout`."""

    def __init__(self, timeout: float):
        super().__init__(daemon=True)
        self.timeout, self.received, self.cut = timeout, 0, False
        self.socket: socket.socket | None = None
        self.over = threading.Event()

    def see(self, connected: socket.socket) -> None:
        self.socket = connected
        if not self.ident:
            self.start()

    def run(self) -> None:
        before = 0
        while not self.over.wait(self.timeout):
            if self.received - before < SLOWEST:
                self.cut = True
                with suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)
            before = self.received


class _Handler(request.AbstractHTTPHandler):
    def __init__(self, watch: _Watch):
        super().__init__()
        self.watch = watch

    def http_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(_Http, asked, watch=self.watch)

    def https_open(self, asked: request.Request) -> HTTPResponse:
        return self.do_open(_Https, asked, watch=self.watch)

    http_request = https_request = request.AbstractHTTPHandler.do_request_


class _Watched:
    def __init__(self, *args, watch: _Watch, **options):
        super().__init__(*args, **options)
        self.watch = watch

    def connect(self) -> None:
        super().connect()
        self.watch.see(self.sock)


class _Http(_Watched, HTTPConnection):
    pass


class _Https(_Watched, HTTPSConnection):
    pass

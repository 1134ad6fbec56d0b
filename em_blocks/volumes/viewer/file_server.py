"""A file server for one viewer: local volumes over HTTP, to this machine and nothing else of it.

Only what was offered can be read: files below folders that were named, never through a symbolic
link that leads out of them. The server listens on the loopback interface, its addresses hold a
random word (other users of this machine can connect too), requests for another host name are
refused (a page could have pointed its own name here), and only pages of the viewer may read answers.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.volumes.formats.compressed_chunks import SUFFIXES, decompressed

HOST = "127.0.0.1"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_BYTES_AT_ONCE = 1 << 18
_ALLOWED = "GET, HEAD, OPTIONS"


class ByteRange(NamedTuple):
    """Bytes of a file; the end is excluded."""

    begin: int
    end: int

    @classmethod
    def of(cls, header: str | None, size: int) -> ByteRange | None:
        """Parse a Range header for a file of `size` bytes; None: the whole file.

        Raises
        ------
        ValueError
            If the file has none of these bytes.
        """
        found = _RANGE.match(header or "")
        if not found or found.group(0) == "bytes=-":
            return None  # several ranges, or another unit: a server may answer with everything
        first, last = found.groups()
        if not first:
            begin, end = max(0, size - int(last)), size
        else:
            begin, end = int(first), min(size, int(last) + 1) if last else size
        if begin >= end:
            raise ValueError(header)
        return cls(begin, end)


class FileServer(ThreadingHTTPServer):
    """Serves files below some folders until it is closed.

    Parameters
    ----------
    port : int
        0: a free one.
    origin : str
        Of the pages that may read the answers, such as ``https://neuroglancer-demo.appspot.com``.

    Raises
    ------
    ConfigError
        If the port is in use or not allowed.
    """

    daemon_threads = True

    def __init__(self, port: int, origin: str):
        self.origin, self.word = origin, secrets.token_urlsafe(12)
        self._folders: list[Path] = []
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"Port {port} of {HOST} cannot be listened on ({error.strerror}): another viewer or "
                "program may use it. Choose another --port, or 0 for any free one."
            ) from error

    def offer(self, folder: Path | str) -> str:
        """Serve the files below `folder`, too; returns its URL."""
        self._folders.append(Path(folder).resolve())
        return f"{self.url}/{len(self._folders) - 1}"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.word}"

    def file_at(self, target: str) -> Path | None:
        """Return the file that a request asks for; None if there is none, or it was not offered."""
        parts = unquote(urlsplit(target).path).split("/")
        if len(parts) < 4 or not secrets.compare_digest(parts[1].encode(), self.word.encode()):
            return None
        return self._file_below(parts[2], parts[3:])

    def open_at(self, target: str) -> BinaryIO | None:
        """Open the file as `file_at` finds it; a compressed chunk is found by its plain name.

        Raises
        ------
        OSError, VolumeError
            If it cannot be read.
        """
        if (path := self.file_at(target)) is not None:
            return path.open("rb")
        for suffix in SUFFIXES:
            if (path := self.file_at(urlsplit(target).path + suffix)) is not None:
                return io.BytesIO(decompressed(path.read_bytes(), path.name))
        return None

    def allows_host(self, host: str | None) -> bool:
        return host in {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def _file_below(self, number: str, names: Sequence[str]) -> Path | None:
        if not number.isascii() or not number.isdecimal() or int(number) >= len(self._folders):
            return None
        if any(name in ("", ".", "..") or "\0" in name for name in names):
            return None
        folder = self._folders[int(number)]
        try:
            path = folder.joinpath(*names).resolve()
            return path if path.is_relative_to(folder) and path.is_file() else None
        except OSError:  # a name that is too long, a folder that may not be entered: not here
            return None


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"  # a viewer asks for thousands of chunks: keep connections

    def do_GET(self):
        self._answer(with_body=True)

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_OPTIONS(self):
        """Answer the preflight request by which a browser asks whether a page may read from here."""
        if not self.server.allows_host(self.headers["Host"]):
            return self._refuse(HTTPStatus.FORBIDDEN)
        self._head(HTTPStatus.NO_CONTENT, {
            "Access-Control-Allow-Methods": _ALLOWED, "Access-Control-Allow-Headers": "Range",
            "Access-Control-Allow-Private-Network": "true", "Access-Control-Max-Age": "86400",
        })

    def _answer(self, *, with_body: bool) -> None:
        if not self.server.allows_host(self.headers["Host"]):
            return self._refuse(HTTPStatus.FORBIDDEN)
        try:
            file = self.server.open_at(self.path)
        except (OSError, VolumeError):
            file = None
        if file is None:  # what a viewer expects of a chunk that was never written
            return self._refuse(HTTPStatus.NOT_FOUND)
        with file:
            self._send(file, with_body)

    def _send(self, file: BinaryIO, with_body: bool) -> None:
        size = file.seek(0, 2)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream",
                   "Cache-Control": "no-cache"}  # volumes are looked at while they are computed
        try:
            part = ByteRange.of(self.headers["Range"], size)
        except ValueError:
            return self._refuse(
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"}
            )
        status, begin, end = HTTPStatus.OK, 0, size
        if part is not None:
            status, (begin, end) = HTTPStatus.PARTIAL_CONTENT, part
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        self._head(status, {**headers, "Content-Length": str(end - begin)})
        if with_body:
            file.seek(begin)
            while data := file.read(min(_BYTES_AT_ONCE, end - file.tell())):
                self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": "0", **(headers or {})})

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", self.server.origin)
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        self.send_header("Vary", "Origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format, *args):
        """Log nothing: a viewer makes thousands of requests."""

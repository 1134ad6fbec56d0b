"""The web application of a run's page: static files, and JSON about the run.

All paths begin with a random word, because other users of this machine can connect, too. Requests for
another host name are refused (a page of the internet could have pointed its own name here), and the
page may load and run nothing but its own files.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from em_blocks.db.progress import answered_within
from em_blocks.errors import ConfigError, EmBlocksError
from em_blocks.runtime.monitoring.block_map import section_map
from em_blocks.runtime.monitoring.overview import block_details
from em_blocks.runtime.monitoring.watch import PERIOD_S, SHARE, UNAVAILABLE, Watcher

STATIC = Path(__file__).parent / "static"
QUERY_S = 20.0
MOST_SECTIONS = 8

_BLOCK = re.compile(r"\d{1,9}/\d{1,9}/\d{1,9}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def make_app(watcher: Watcher, *, title: str, word: str, hosts: frozenset[str] | None) -> Starlette:
    """Return the web application.

    Parameters
    ----------
    watcher : Watcher
        Looks at the run in its own thread meanwhile.
    title : str
        Of the page.
    word : str
        First part of all paths.
    hosts : frozenset of str, or None
        Host names, without port, that requests may ask for; None: any.
    """
    api = _Api(watcher, title)
    return guarded([
        Route("/api/overview", api.overview),
        Route("/api/map", api.section),
        Route("/api/block", api.block),
    ], word=word, hosts=hosts)


def guarded(routes: Sequence[Route], *, word: str, hosts: frozenset[str] | None) -> Starlette:
    """Return an application of these routes and the static files; the rest as of `make_app`."""
    files = Mount("/", StaticFiles(directory=STATIC, html=True))
    return Starlette(
        routes=[Mount(f"/{word}", routes=[*routes, files])],
        middleware=[Middleware(_Guard, hosts=hosts), Middleware(GZipMiddleware, compresslevel=3)],
    )


class _Guard:
    """Refuses other host names and all requests but reading; adds headers to every answer."""

    def __init__(self, app: Callable, hosts: frozenset[str] | None):
        self._app, self._hosts = app, hosts

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_guarded(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.encode(), v.encode()) for k, v in _HEADERS.items()]
            await send(message)

        await self._answer(scope)(scope, receive, send_guarded)

    def _answer(self, scope) -> Callable:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self._hosts is not None and host_name(host) not in self._hosts:
            return PlainTextResponse("This page is not served under that host name.", 403)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("This page is for reading only.", 405)
        return self._app


def host_name(host: str) -> str:
    """Return the ``Host`` header without its port, in lower case."""
    return re.sub(r":\d+$", "", host).lower()


class _Packed(NamedTuple):
    """An answer that is cached for a while."""

    body: bytes
    etag: str
    until: float


class _Api:
    """Answers the requests of the page. Starlette calls it in threads: it may block."""

    def __init__(self, watcher: Watcher, title: str):
        self._watcher, self._title = watcher, title
        self._sections: OrderedDict[tuple[str, int], _Packed] = OrderedDict()
        self._lock = threading.Lock()

    def overview(self, request: Request) -> Response:
        return JSONResponse({"title": self._title, **self._watcher.snapshot()})

    def block(self, request: Request) -> Response:
        """``?step=NAME&block=zi/yi/xi``."""
        return answered(lambda: JSONResponse(self._block(request)))

    def section(self, request: Request) -> Response:
        """``?step=NAME&z=N``, the blocks of one section."""
        return answered(lambda: self._section(request))

    def _block(self, request: Request) -> dict:
        key = request.query_params.get("block", "")
        if not _BLOCK.fullmatch(key):
            raise ConfigError(f"block {key!r} is not of the form zi/yi/xi")
        step, store = self._watcher.store(request.query_params.get("step", ""))
        return block_details(step, store, key)

    def _section(self, request: Request) -> Response:
        z = request.query_params.get("z", "")
        if not re.fullmatch(r"\d{1,9}", z):
            raise ConfigError(f"z={z!r} is no section")
        packed = self._packed(request.query_params.get("step", ""), int(z))
        headers = {"ETag": packed.etag}
        if request.headers.get("if-none-match") == packed.etag:
            return Response(status_code=304, headers=headers)
        return Response(packed.body, media_type="application/json", headers=headers)

    def _packed(self, name: str, z: int) -> _Packed:
        """Return a section as it is now; one of very many blocks as it was a little earlier."""
        with self._lock:  # one question at a time, however many pages are open
            kept = self._sections.get((name, z))
            if kept is None or time.monotonic() > kept.until:
                start = time.monotonic()
                body = json.dumps(section_map(self._watcher.store(name)[1], z)).encode()
                now = time.monotonic()
                until = now + max(PERIOD_S / 2, SHARE * (now - start))
                kept = _Packed(body, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"', until)
                self._sections[name, z] = kept
            self._sections.move_to_end((name, z))
            while len(self._sections) > MOST_SECTIONS:
                self._sections.popitem(last=False)
            return kept


def answered(answer: Callable[[], Response]) -> Response:
    """Return the answer, or why there is none."""
    try:
        with answered_within(QUERY_S):
            return answer()
    except UNAVAILABLE as error:
        return JSONResponse({"error": str(error).split(", Timeout")[0][:500]}, 503)
    except EmBlocksError as error:
        return JSONResponse({"error": str(error)}, 404)

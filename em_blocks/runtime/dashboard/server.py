"""The server of a page, until it is interrupted."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from starlette.applications import Starlette

from em_blocks.errors import ConfigError
from em_blocks.runtime.dashboard.app import make_app
from em_blocks.runtime.dashboard.trainings import Source, trainings_app
from em_blocks.runtime.monitoring.overview import StepView
from em_blocks.runtime.monitoring.watch import Database, Watcher
from em_blocks.tasks.base import BlockwiseTask

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class Dashboard:
    """A page that listens, and answers once `serve` is called."""

    url: str
    is_private: bool
    _server: uvicorn.Server
    _socket: socket.socket

    def serve(self) -> None:
        """Answer until SIGINT (then KeyboardInterrupt is raised) or SIGTERM."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._server.should_exit = True


@contextmanager
def open_dashboard(
    steps: Mapping[StepView, BlockwiseTask], *, title: str, host: str, port: int
) -> Iterator[Dashboard]:
    """Yield the page of a config's runs, which already listens.

    Parameters
    ----------
    host, port : str, int
        Where it listens; port 0 is any free one.

    Raises
    ------
    ConfigError
        If the address cannot be listened on.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        database = Database(steps)
        stack.callback(database.close)
        watcher = stack.enter_context(Watcher(database.stores))
        yield _dashboard(partial(make_app, watcher, title=title), listening, host)


@contextmanager
def open_trainings(source: Source, *, host: str, port: int) -> Iterator[Dashboard]:
    """Yield the page of recorded trainings, which already listens; parameters as of `open_dashboard`.

    Parameters
    ----------
    source : Source
        Where the trainings are recorded.
    """
    with _listen(host, port) as listening:
        yield _dashboard(partial(trainings_app, source), listening, host, "trainings.html")


def _dashboard(
    make: Callable[..., Starlette], listening: socket.socket, host: str, page: str = ""
) -> Dashboard:
    """Return the page of an application, which gets the random word of its paths and its hosts."""
    word, private = secrets.token_urlsafe(12), _is_loopback(listening)
    config = uvicorn.Config(
        make(word=word, hosts=LOOPBACK if private else None), log_level="warning", access_log=False,
        lifespan="off", server_header=False, timeout_graceful_shutdown=2, ws="none",
    )
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listening.getsockname()[1]}/{word}/{page}"
    return Dashboard(url, private, uvicorn.Server(config), listening)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigError(
            f"The address {host}:{port} cannot be listened on ({error.strerror or error}): another "
            "program may use the port, or the address is none of this machine. Choose another --port, "
            "or 0 for any free one, and a --host of this machine."
        ) from error


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback

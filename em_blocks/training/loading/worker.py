"""A loader: the process that makes every n-th batch of a training.

Started as ``python -m em_blocks.training.loading.worker FD`` with one end of a connection.
"""

from __future__ import annotations

import pickle
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import gunpowder as gp

from em_blocks.errors import RunFailedError
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import open_sources
from em_blocks.training.loading.stream import BatchStream

ALIVE_S = 1.0
"""Seconds between signs of life while samples are drawn."""


class Share(NamedTuple):
    """What one loader makes: the batches `first`, `first` + `step`, ... below `last`."""

    config: SetupConfig
    context: tuple[int, int, int]
    first: int
    last: int
    step: int


class SignOfLife:
    """Tell the training that a loader works, at most every `ALIVE_S` seconds."""

    def __init__(self, connection: Connection):
        self.connection, self.told = connection, 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self.told > ALIVE_S:
            self.told = now
            self.connection.send(None)


def make_batches(connection: Connection, share: Share) -> None:
    """Send the batches of a share; an error instead of a batch, and then no more."""
    alive = SignOfLife(connection)
    try:
        alive()
        sources = open_sources(share.config.training.sources, share.config, check=False)
        stream = BatchStream(share.config, sources, share.context, alive=alive)
        with gp.build(stream.graph):
            for index in range(share.first, share.last, share.step):
                connection.send(stream.batch(index))
    except (BrokenPipeError, ConnectionResetError):
        return  # the training ended
    except Exception as error:  # raised again where the batch is used
        connection.send(_sendable(error))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunFailedError(f"A batch could not be made: {type(error).__name__}: {error}")
    return error


def main(fd: int) -> None:
    """Make the share that comes over the connection `fd`."""
    # The training decides when it ends: on a signal to all processes it first saves its state.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(fd)
    make_batches(connection, Share(*connection.recv()))


if __name__ == "__main__":
    main(int(sys.argv[1]))

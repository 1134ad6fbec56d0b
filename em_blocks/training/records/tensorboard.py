"""The TensorBoard log of a training."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

logger = logging.getLogger(__name__)

FLUSH_S = 30.0
_ILLEGAL = re.compile(r"[^-/\w.]")


class TensorBoardRecord:
    """Record of curves and pictures: every start of a training makes a log of its own in `folder`.

    tensorboardX's SummaryWriter is not used: its thread ends when the disk is full, and then the
    training waits for it for ever. A log that cannot be written is given up with a warning: it
    decides nothing.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._events: RecordWriter | None = None
        self._flushed = time.monotonic()

    def start(self, iteration: int, document: dict) -> None:
        """Open a log; what older ones say of later iterations is hidden."""
        with self._given_up_on_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
            self._events = RecordWriter(str(self.folder / name))
            self._write(iteration, file_version="brain.Event:2")
            self._write(iteration, session_log=SessionLog(status=SessionLog.START))

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._add(iteration, summary=summary.scalar(tag(name), value))

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        self._add(iteration, summary=summary.image(tag(name), picture, dataformats="HWC"))

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None: ...

    def finish(self, state: str, reason: str | None) -> None:
        if self._events is not None:
            with self._given_up_on_errors():
                self._events.close()

    def _add(self, iteration: int, **content) -> None:
        if self._events is None:
            return
        with self._given_up_on_errors():
            self._write(iteration, **content)
            if time.monotonic() - self._flushed > FLUSH_S:
                self._events.flush()
                self._flushed = time.monotonic()

    def _write(self, iteration: int, **content) -> None:
        event = Event(wall_time=time.time(), step=iteration, **content)
        self._events.write(event.SerializeToString())

    @contextmanager
    def _given_up_on_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._events is not None:
                with suppress(OSError):  # the same one, from what was still to be written
                    self._events.close()
            self._events = None
            logger.warning(
                "the TensorBoard log in %s cannot be written (%s); the training goes on without it",
                self.folder, error.strerror,
            )


def tag(name: str) -> str:
    """Return a name as TensorBoard takes it; its library would replace the rest with a warning each."""
    return _ILLEGAL.sub("_", name).lstrip("/")

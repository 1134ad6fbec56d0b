"""A training as a document of the run database, with its curves."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from em_blocks.db.connect import ServerError, with_patience
from em_blocks.db.trainings.series import CHUNK, Series
from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import DatabaseError
from em_blocks.training.records.origin import now

logger = logging.getLogger(__name__)

BEAT_S = 10.0
LAST_S = 60.0
"""How long the end of a training waits for a database that is unavailable."""


class MongoRecord:
    """Record of a training in the run database, written by a thread of its own.

    Once the training has begun, an outage of the database delays nothing: what is new is kept, and
    written when the server is back.

    Parameters
    ----------
    store : TrainingStore
    folder : Path
        Of the training; the document says where it lies.
    curves : function
        Returns the series of the same training, as they were before this start.

    Attributes
    ----------
    number : int
        `_id` of the training, from `start` on.
    """

    def __init__(
        self, store: TrainingStore, folder: Path, curves: Callable[[], Mapping[str, Series]]
    ):
        self.store, self.folder, self.curves = store, folder.resolve(), curves
        self.number = 0
        self._document: dict | None = None
        self._pieces = _Pieces()
        self._changed, self._ended = threading.Event(), False
        self._lock, self._is_away = threading.Lock(), False

    def start(self, iteration: int, document: dict) -> None:
        """Find or make the document, and make the curves those of the folder.

        Raises
        ------
        DatabaseError
            If the database cannot be written.
        """
        with_patience(self.store.prepare)
        self.write_once(document)
        logger.info("training %d of the run database", self.number)
        self._thread = threading.Thread(target=self._work, name="run database", daemon=True)
        self._thread.start()

    def write_once(self, document: dict) -> int:
        """Replace the document and the curves of a training; returns its number."""
        self.number, first = with_patience(lambda: self.store.begin(document["uid"]))
        self._revision, self._document = first, document
        self._pieces = _Pieces(self.curves())
        with_patience(self._push)
        with_patience(lambda: self.store.drop_chunks_before(self.number, first))
        return self.number

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        measured = time.time()
        with self._lock:
            for name, value in values.items():
                self._pieces.add(name, iteration, float(value), measured)

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None: ...

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        with self._lock:
            self._document = document
        self._changed.set()

    def finish(self, state: str, reason: str | None) -> None:
        """Write the last of it; an unavailable database is waited for, then told how to catch up."""
        if not self.number:
            return
        self._ended = True
        self._changed.set()
        self._thread.join()
        last = {"state": state, "reason": reason, "updated": now()}
        self._document = (self._document or self._last) | last
        try:
            with_patience(self._push, LAST_S)
        except (ServerError, DatabaseError) as error:
            logger.warning(
                "the run database lacks the end of training %d (%s); add it later with: em-blocks runs "
                "import %s", self.number, error, self.folder,
            )

    def _work(self) -> None:
        while not self._ended:
            self._changed.wait(BEAT_S)
            self._changed.clear()
            if not self._ended:
                self._try()

    def _try(self) -> None:
        try:
            self._push()
            self.store.beat(self.number)
        except ServerError as error:
            if not self._is_away:
                logger.warning("the run database is unavailable (%s); the training goes on", error)
            self._is_away = True
            time.sleep(1.0)
            return
        if self._is_away:
            logger.info("the run database is back, and has all of training %d", self.number)
        self._is_away = False

    def _push(self) -> None:
        """Write what is new; what could not be written stays new."""
        with self._lock:
            self._revision += 1
            document, chunks, revision = self._document, self._pieces.changed(), self._revision
        self.store.save_chunks(self.number, chunks, revision)
        if document is not None:
            place = {"folder": str(self.folder), "number": self.number}
            self.store.save(self.number, document | place, revision)
        with self._lock:
            self._pieces.written(chunks)
            if self._document is document:
                self._last, self._document = document or self._last, None


class _Pieces:
    """Curves as the chunks that are stored; whole and written ones are forgotten."""

    def __init__(self, curves: Mapping[str, Series] | None = None):
        self._chunks: dict[str, dict[int, Series]] = {
            name: dict(enumerate(series.chunks())) for name, series in (curves or {}).items()
        }
        self._new = {(name, index) for name, all in self._chunks.items() for index in all}

    def add(self, name: str, step: int, value: float, time: float) -> None:
        chunks = self._chunks.setdefault(name, {0: Series()})
        index = max(chunks)
        if len(chunks[index]) == CHUNK and step > chunks[index].steps[-1]:
            index += 1
            chunks[index] = Series()
        chunks[index].add(step, value if math.isfinite(value) else None, time)
        self._new.add((name, index))

    def changed(self) -> dict[tuple[str, int], Series]:
        """Copy the chunks that are not written."""
        return {(name, index): self._copy(name, index) for name, index in self._new}

    def written(self, copies: Mapping[tuple[str, int], Series]) -> None:
        """Count chunks as written, unless they have changed since they were copied."""
        for (name, index), copy in copies.items():
            if self._chunks[name][index] == copy:
                self._new.discard((name, index))
                if index < max(self._chunks[name]):
                    del self._chunks[name][index]

    def _copy(self, name: str, index: int) -> Series:
        chunk = self._chunks[name][index]
        return Series([*chunk.steps], [*chunk.values], [*chunk.times])

"""The curves of a training as a file of JSON lines, one per measurement."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from em_blocks.db.trainings.series import Series
from em_blocks.errors import RunFailedError
from em_blocks.json_text import json_text
from em_blocks.training.records.whole_file import write_whole

logger = logging.getLogger(__name__)

_METRICS = Path("training") / "metrics.jsonl"


def metrics_of(folder: Path) -> MetricsFile:
    """Return the curves of the training in `folder`, which need not exist."""
    return MetricsFile(folder / _METRICS)


class MetricsFile:
    """Record of curves: lines ``{"step", "time", "values": {name: value}}``.

    A file that cannot be written is given up with a warning: it decides nothing.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: IO[str] | None = None

    def read(self) -> dict[str, Series]:
        """Read all series by name; empty if there is no file."""
        found: dict[str, Series] = {}
        for line in self._lines():
            for name, value in line["values"].items():
                found.setdefault(name, Series()).add(line["step"], value, line["time"])
        return found

    def start(self, iteration: int, document: dict) -> None:
        """Keep the lines up to `iteration`: a resumed training repeats what came after it."""
        kept = [line for line in self._lines() if line["step"] <= iteration]
        try:
            write_whole(self.path, lambda path: path.write_text("".join(map(_text, kept))))
            self._file = self.path.open("a", buffering=1)
        except (OSError, RunFailedError) as error:
            self._give_up(error)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(
                _text({"step": iteration, "time": round(time.time(), 3), "values": dict(values)})
            )
        except OSError as error:
            self._give_up(error)

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None: ...

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None: ...

    def finish(self, state: str, reason: str | None) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._give_up(error)

    def _lines(self) -> Iterator[dict]:
        """Yield the lines that are whole: a killed process may have left half of the last."""
        if not self.path.is_file():
            return
        with self.path.open() as file:
            for line in file:
                if line.endswith("}}\n"):
                    yield json.loads(line)

    def _give_up(self, error: Exception) -> None:
        self._file = None
        logger.warning(
            "the curves in %s cannot be written (%s); the training goes on without them",
            self.path, error,
        )


def _text(line: dict) -> str:
    return json_text(line) + "\n"

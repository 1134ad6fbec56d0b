"""Records of a running training: a JSON file and TensorBoard curves; a database can be added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from em_blocks.training.whole_file import write_whole


class TrainingRecord(Protocol):
    """Receiver of the events of a training; `document` (JSON values) describes it up to now."""

    def start(self, iteration: int, document: dict) -> None:
        """Begin, or go on after `iteration`."""

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Note values that were measured after `iteration`."""

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        """Note a (height, width, 3) uint8 picture."""

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        """Note that `weights` of `iteration` are saved."""

    def finish(self) -> None:
        """End, also after an error."""


class JsonRecord:
    """One JSON file of the newest document; curves and pictures are not in it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict:
        """Read the record of the training in this folder; empty if there is none."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def start(self, iteration: int, document: dict) -> None:
        self._write(document)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None: ...

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None: ...

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        self._write(document)

    def finish(self) -> None: ...

    def _write(self, document: dict) -> None:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_whole(self.path, lambda path: path.write_text(text))


class Records:
    """Several records as one; a context manager that finishes them.

    Parameters
    ----------
    records : sequence of TrainingRecord
    """

    def __init__(self, records: Sequence[TrainingRecord]):
        self.records = records

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self.finish()

    def start(self, iteration: int, document: dict) -> None:
        for record in self.records:
            record.start(iteration, document)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        for record in self.records:
            record.metrics(iteration, values)

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        for record in self.records:
            record.picture(iteration, name, picture)

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        for record in self.records:
            record.checkpoint(iteration, weights, document)

    def finish(self) -> None:
        for record in self.records:
            record.finish()

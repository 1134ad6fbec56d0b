"""What a training tells of itself, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
"""States of a training in its document. One that is running but silent counts as dead."""


class TrainingRecord(Protocol):
    """Receiver of the events of a training; `document` (JSON values) describes it up to now."""

    def start(self, iteration: int, document: dict) -> None:
        """Begin, or go on after `iteration`: what was noted of later ones is void."""

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None:
        """Note values that were measured after `iteration`."""

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None:
        """Note a (height, width, 3) uint8 picture."""

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        """Note that `weights` of `iteration` are saved."""

    def finish(self, state: str, reason: str | None) -> None:
        """End as finished, stopped or failed; `reason` says why, unless finished."""


class Records:
    """Several records as one; a context manager that finishes them.

    Parameters
    ----------
    records : sequence of TrainingRecord

    Attributes
    ----------
    state : str
        How the training counts as ended; failed until something else is said.
    """

    def __init__(self, records: Sequence[TrainingRecord]):
        self.records, self.state = records, FAILED

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.finish(self.state, None if error is None else f"{type(error).__name__}: {error}")

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

    def finish(self, state: str, reason: str | None) -> None:
        with ExitStack() as all_of_them:  # also if one of them fails
            for record in reversed(self.records):
                all_of_them.callback(record.finish, state, reason)

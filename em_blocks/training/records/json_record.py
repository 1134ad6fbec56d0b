"""The newest document of a training as a JSON file beside its weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.errors import RunFailedError
from em_blocks.training.records.origin import now
from em_blocks.training.records.whole_file import write_whole

logger = logging.getLogger(__name__)

_RECORD = Path("checkpoints") / "record.json"
_NOTES = "notes"


def record_of(folder: Path) -> JsonRecord:
    """Return the record of the training in `folder`, which need not exist."""
    return JsonRecord(folder / _RECORD)


class JsonRecord:
    """One JSON file of the newest document; curves and pictures are not in it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path
        self._document: dict = {}

    def read(self) -> dict:
        """Read the record of the training in this folder; empty if there is none."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def start(self, iteration: int, document: dict) -> None:
        self._write(document)

    def metrics(self, iteration: int, values: Mapping[str, float]) -> None: ...

    def picture(self, iteration: int, name: str, picture: np.ndarray) -> None: ...

    def checkpoint(self, iteration: int, weights: Path, document: dict) -> None:
        self._write(document)

    def finish(self, state: str, reason: str | None) -> None:
        try:
            self._write(self._document | {"state": state, "reason": reason, "updated": now()})
        except RunFailedError as error:  # it must not hide the one that ended the training
            logger.warning("the record does not say how the training ended: %s", error)

    def note(self, name: str, value: Any) -> bool:
        """Add what others found out about the training; False if there is no record."""
        document = self.read()
        if document:
            self._write(document | {_NOTES: document.get(_NOTES, {}) | {name: value}})
        return bool(document)

    def _write(self, document: dict) -> None:
        if _NOTES not in document and (notes := self.read().get(_NOTES)):
            document = document | {_NOTES: notes}  # a training that goes on does not know them
        self._document = document
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_whole(self.path, lambda path: path.write_text(text))

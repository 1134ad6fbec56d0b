"""Scores of checkpoints on validation data, from predictions that are stored."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.geometry import Box
from em_blocks.json_text import json_text
from em_blocks.tasks.prediction.predict_checkpoints import PredictCheckpoints, Predicted
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.selection import UNDEFINED, Choice
from em_blocks.training.validation import Validation
from em_blocks.volumes import Volume

_DRAWN = ("f1", "jaccard", "precision", "recall")
"""Ends of the names of scores that are drawn: those between 0 and 1."""


@dataclass(frozen=True)
class ScoredCheckpoints:
    """Checkpoints, each with the entry that a validation gives in a training.

    Attributes
    ----------
    entries : list of dict
        By ascending "iteration".
    names : list of str
        Of all scores.
    choice : Choice
        By which score the best is chosen.
    """

    entries: list[dict]
    names: list[str]
    choice: Choice

    @property
    def best(self) -> dict | None:
        """The entry of the best checkpoint, the first of equal ones; None if none has the score."""
        return self.choice.best_of(self.entries)

    def document(self) -> dict:
        """As JSON."""
        best = self.best
        return {
            "score": self.choice.score, "lower_is_better": self.choice.lower_wins,
            "best": None if best is None else {
                "iteration": best["iteration"], "value": best[self.choice.score]
            },
            "checkpoints": self.entries,
        }


def score_checkpoints(
    task: PredictCheckpoints, shown: Iterable[int] | None = None
) -> ScoredCheckpoints:
    """Score the predictions of all checkpoints of a task whose runs are done.

    Memory: a part of a box, or for heads that need whole boxes, the largest box.

    Parameters
    ----------
    shown : iterable of int, optional
        The iterations, as something that shows how far it is.
    """
    boxes = {box.key: box for box in task.boxes}
    validation = Validation(task.setup_config, [box.data for box in task.boxes])
    entries = [
        validation.entry_of(_Stored(task, boxes, iteration), iteration)
        for iteration in shown or task.checkpoints
    ]
    return ScoredCheckpoints(entries, validation.names, validation.choice)


class _Stored:
    """The predictions of one checkpoint, read where a network would predict."""

    def __init__(self, task: PredictCheckpoints, boxes: Mapping[str, Predicted], iteration: int):
        self._boxes = boxes
        self._volumes = {
            key: {
                head: Volume.open(task.volume_of(box, iteration, head))
                for head in task.setup_config.heads
            }
            for key, box in boxes.items()
        }

    def __call__(self, part: TrainingData) -> dict[str, np.ndarray]:
        """Return the prediction (c, z, y, x) of every head for a part of a box."""
        first = self._boxes[part.name].data.begin
        box = Box.between(part.begin, part.end).relative_to(Box(first, (1, 1, 1)))
        return {head: volume.read_scaled(box) for head, volume in self._volumes[part.name].items()}


def write_results(folder: Path, found: ScoredCheckpoints) -> list[Path]:
    """Write checkpoints.json, checkpoints.csv and checkpoints.png; return their paths."""
    from PIL import Image

    from em_blocks.kernels.plots.curves import score_curves

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"checkpoints.{ending}" for ending in ("json", "csv", "png")]
    paths[0].write_text(json_text(found.document(), indent=2) + "\n")
    with open(paths[1], "w", newline="") as file:
        table = csv.DictWriter(file, ["iteration", *found.names], extrasaction="ignore")
        table.writeheader()
        table.writerows(found.entries)
    picture = score_curves(
        [entry["iteration"] for entry in found.entries],
        {name: [entry[name] for entry in found.entries] for name in drawn(found)},
        xlabel="iteration", best=None if found.best is None else found.best["iteration"],
    )
    Image.fromarray(picture).save(paths[2])
    return paths


def drawn(found: ScoredCheckpoints) -> list[str]:
    """Return the names of scores between 0 and 1 that have a value, the choosing one first."""
    return list(_drawn(found))


def _drawn(found: ScoredCheckpoints) -> Iterator[str]:
    names = dict.fromkeys([found.choice.score, *found.names])
    for name in names:
        values = [entry[name] for entry in found.entries if entry.get(name) is not None]
        is_share = name == found.choice.score or name.removesuffix("_metric").endswith(_DRAWN)
        if values and is_share and name != UNDEFINED:
            yield name

"""Scores of the data sets of a validation: counted part by part, or of whole boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from em_blocks.models.config import SetupConfig
from em_blocks.models.counted import CountedHead
from em_blocks.models.head import Better, Head
from em_blocks.models.scores.voxels import mean_of_known
from em_blocks.models.truth import ANNOTATED, METRIC, Truth
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.inference import truth_of_box
from em_blocks.training.scores.parts import part_shape, parts_of

Predict = Callable[[TrainingData], Mapping[str, np.ndarray]]
MEASURED = f"_{METRIC}"
"""End of the names of scores over the voxels that count by the metric masks."""


class SetScores(NamedTuple):
    """Scores of one data set by name; nan where nothing is known.

    Attributes
    ----------
    counted : dict
        Those of heads that count, over all boxes of the set.
    boxes : list of dict
        Those of the other heads, box by box.
    """

    counted: dict[str, float]
    boxes: list[dict[str, float]]

    def all(self) -> dict[str, float]:
        """Return all scores of the set; of boxes the mean of those that have a value."""
        return self.counted | means(self.boxes)


def means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every score over the rows in which it has a value; nan where it has none."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: mean_of_known([row.get(name, math.nan) for row in rows]) for name in names}


def score_names(config: SetupConfig, *, metric: bool = True) -> dict[str, Better]:
    """Name all scores of a setup, and say which values are the better ones.

    Parameters
    ----------
    metric : bool
        Whether scores over the voxels of metric masks are among them.
    """
    names: dict[str, Better] = {}
    for name, head in config.heads.items():
        own = {f"{name}/{key}": better for key, better in head.score_names().items()}
        names |= own
        if metric and isinstance(head, CountedHead):
            names |= {f"{key}{MEASURED}": better for key, better in own.items()}
    for joint in config.joint_scores():
        names |= joint.score_names()
    return names


class DataSets:
    """The validation boxes of a setup, by data set.

    Parameters
    ----------
    config : SetupConfig
    boxes : sequence of TrainingData

    Attributes
    ----------
    names : list of str
        Of the data sets.
    metric : bool
        Whether any of them has a metric mask. Where only some have, all of the others counts.
    """

    def __init__(self, config: SetupConfig, boxes: Sequence[TrainingData]):
        self.config, self.joint = config, config.joint_scores()
        self.metric = any(METRIC in data.masks for data in boxes)
        self._boxes: dict[str, list[TrainingData]] = {}
        for data in boxes:
            self._boxes.setdefault(data.data_set or data.name, []).append(data)
        self.names = list(self._boxes)
        self._counting = {
            name: head for name, head in config.heads.items() if isinstance(head, CountedHead)
        }
        # What depends on voxels around it, or on the whole, is not scored in parts.
        self._by_parts = not self.joint and all(
            name in self._counting and not any(head.reach(config.voxel_size))
            for name, head in config.heads.items()
        )

    def boxes(self, name: str) -> list[TrainingData]:
        """Return the boxes of a data set."""
        return self._boxes[name]

    def scores(self, name: str, predict: Predict) -> SetScores:
        """Score what `predict` gives for the parts of a data set."""
        counts: dict[str, np.ndarray] = {}
        rows = []
        for part in self.parts(name):
            predicted, truth = predict(part), truth_of_box(part, self.config.voxel_size)
            for key, tally in self._tallies(predicted, truth):
                counts[key] = counts[key] + tally if key in counts else tally
            rows.append(self._of_box(predicted, truth))
        return SetScores(self._from_counts(counts), rows)

    def parts(self, name: str) -> Iterator[TrainingData]:
        """Yield what is predicted at a time: whole boxes where a head needs them."""
        for data in self.boxes(name):
            yield from parts_of(data, part_shape(self.config.tile_shape)) if self._by_parts else [data]

    def _tallies(
        self, predicted: Mapping[str, np.ndarray], truth: Truth
    ) -> Iterable[tuple[str, np.ndarray]]:
        for name, head in self._counting.items():
            yield name, head.tally(predicted[name], truth)
            if self.metric:
                yield name + MEASURED, head.tally(predicted[name], _measured(head, truth))

    def _from_counts(self, counts: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = {}
        for name, head in self._counting.items():
            for suffix in ("", MEASURED) if self.metric else ("",):
                scores = head.scores_of(counts[name + suffix])
                found |= {f"{name}/{key}{suffix}": value for key, value in scores.items()}
        return found

    def _of_box(self, predicted: Mapping[str, np.ndarray], truth: Truth) -> dict[str, float]:
        found = {
            f"{name}/{key}": value
            for name, head in self.config.heads.items() if name not in self._counting
            for key, value in head.scores(predicted[name], truth).items()
        }
        for joint in self.joint:
            found |= joint.scores(predicted, truth)
        return found


def _measured(head: Head, truth: Truth) -> Truth:
    """Make everything unknown that does not count by the metric mask, if there is one."""
    if METRIC not in truth.masks:
        return truth
    counts = truth.masks[METRIC] != 0
    if f"masks/{ANNOTATED}" in head.needs:  # 0 among its labels is background, not unknown
        return replace(truth, masks=truth.masks | {ANNOTATED: counts & (truth.masks[ANNOTATED] != 0)})
    return replace(truth, labels={
        name: np.where(counts, labels, labels.dtype.type(0)) for name, labels in truth.labels.items()
    })

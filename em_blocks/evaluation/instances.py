"""From pairs of objects to scores, errors and their places: what comes after all blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, Frame, Triple
from em_blocks.kernels.evaluation.instances.bootstrap import DRAWS, LEVEL, Intervals, bootstrap
from em_blocks.kernels.evaluation.instances.errors import (
    KINDS,
    Causes,
    Error,
    find_causes,
    find_errors,
)
from em_blocks.kernels.evaluation.instances.left_out import find_left_out
from em_blocks.kernels.evaluation.instances.pairs import Extents, Pairs, extents, merge_pairs
from em_blocks.kernels.evaluation.instances.places import Places, Query, nearest_voxel
from em_blocks.kernels.evaluation.object_matching import (
    LeftOut,
    ObjectScores,
    Overlaps,
    SizeBin,
    VoxelScores,
    by_size,
    match_objects,
    overlaps,
    score_voxels,
)
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.evaluation.count_instances import CountInstances

Shown = Callable[[Iterable[Block], int], Iterator[Block]]
"""Passes blocks on, and shows how many of all there are."""

MOST_ERRORS = 1000
"""Errors that a JSON document lists; files list all."""

_FEW = 100
_USUAL_IOUS = (0.5, 0.75)
_RANGE = tuple(round(0.5 + 0.05 * n, 2) for n in range(10))
"""Least IoUs of the mean average precision, as in COCO."""


@dataclass(frozen=True)
class LocatedError:
    """An error with its place.

    Attributes
    ----------
    truth, prediction : tuples of int
        Ids of the objects; the one with the most shared voxels first.
    voxel : (3,) int
        Of the region that was compared (z, y, x): one of an object of the error.
    position_nm : (3,) float
        The middle of that voxel.
    """

    kind: str
    truth: tuple[int, ...]
    prediction: tuple[int, ...]
    voxels: int
    voxel: Triple
    position_nm: tuple[float, ...]

    def document(self) -> dict:
        """As JSON."""
        return {
            "type": self.kind, "truth": list(self.truth), "prediction": list(self.prediction),
            "voxels": self.voxels, "position_nm": list(self.position_nm),
        }


@dataclass(frozen=True)
class InstanceScores:
    """Predicted instances against true ones.

    Attributes
    ----------
    scores, bins, intervals : tuples
        One item for each least IoU.
    average_precision : dict
        By least IoU: 0.5, 0.75, and the mean from 0.5 to 0.95.
    causes, errors
        At the first IoU.
    """

    frame: Frame
    shape: Triple
    found: Overlaps
    truth: Extents
    prediction: Extents
    scores: tuple[ObjectScores, ...]
    bins: tuple[tuple[SizeBin, ...], ...]
    intervals: tuple[Intervals, ...]
    average_precision: dict[str, float | None]
    voxels: VoxelScores
    causes: Causes
    errors: list[LocatedError]

    @cached_property
    def error_counts(self) -> dict[str, int]:
        """Number of errors of every kind."""
        counted = Counter(error.kind for error in self.errors)
        return {kind: counted[kind] for kind in KINDS}

    @property
    def left_out(self) -> dict[str, int]:
        """Number of objects that the border rule or unknown voxels leave out, at the first IoU."""
        main = self.scores[0]
        return {"truth": int((~main.counted_truth).sum()),
                "prediction": int((~main.counted_prediction).sum())}

    @property
    def note(self) -> str | None:
        """What to keep in mind: few objects, or a mask instead of instances; None for nothing."""
        return " ".join([*self._masks(), *self._few()]) or None

    def _masks(self) -> Iterator[str]:
        """Yield a hint for a side that has a single object while the other has several."""
        for name, mine, other in (("prediction", self.prediction, self.truth),
                                  ("truth", self.truth, self.prediction)):
            if len(mine.id) == 1 < len(other.id):
                yield (f"The {name} holds one id only, {mine.id[0]}, so it is one object. If it is a "
                       "mask, label its components first (em-blocks objects).")

    def _few(self) -> Iterator[str]:
        n = self.scores[0].n_truth
        if n < _FEW:
            yield f"{n} true objects are few: look at the intervals, not at the last digits."
            if n > 3:
                yield ("An interval that ends at 1 only says that no error was seen: up to 3 in "
                       f"{n} could be wrong.")

    def headline(self) -> dict:
        """Return the scores at the first IoU."""
        main = self.scores[0].figures()
        names = {"ap": "average_precision", "pq": "panoptic_quality"}
        first = {key: main[names.get(key, key)] for key in
                 ("precision", "recall", "fscore", "ap", "pq", "mean_iou", "iou", "tp", "fp", "fn",
                  "n_truth", "n_prediction")}
        return first | {"left_out": self.left_out}

    def document(self) -> dict:
        """As JSON and for the database."""
        return self.headline() | {
            "average_precision": self.average_precision,
            "voxels": self.voxels._asdict(),
            "intervals": _interval_document(self.intervals[0]),
            "note": self.note,
            "by_iou": [
                score.figures() | {"by_size": [bin._asdict() for bin in bins],
                                   "intervals": _interval_document(found)}
                for score, bins, found in zip(self.scores, self.bins, self.intervals, strict=True)
            ],
            "errors": self.error_counts,
            "causes": self.causes.counts(),
            "error_list": [error.document() for error in self.errors[:MOST_ERRORS]],
        }


def _interval_document(found: Intervals) -> dict:
    limits = {key: None if ends is None else list(ends) for key, ends in found.limits.items()}
    return {"level": LEVEL, "draws": DRAWS, "groups": found.groups, **limits}


def count_here(task: CountInstances, blocks: Iterable[Block]) -> Iterator[Pairs]:
    """Measure all pairs in this process, block by block; yields what `CountInstances.stored` does."""
    with task.counting() as count:
        for block in blocks:
            yield count(block, BlockReport())


def score(
    task: CountInstances, parts: Iterable[Pairs], *, shown: Shown = lambda blocks, n: iter(blocks)
) -> InstanceScores:
    """Score the pairs of blocks; memory: a block, and some 250 bytes per pair that shares voxels.

    The blocks that hold errors are read once more, to find their places.

    Raises
    ------
    ConfigError
        If no voxel counts.
    """
    pairs = merge_pairs(parts)
    _check_counted(task, pairs)
    grid, table = task.grid(), pairs.table()
    truth, prediction = extents(pairs, "truth"), extents(pairs, "prediction")
    found = overlaps(table, min_voxels=task.min_voxels)
    left_out = find_left_out(
        found, truth, prediction, shape=grid.volume_shape, border=task.border
    )
    scores = tuple(
        match_objects(found, iou=iou, matching=task.matching, left_out=left_out) for iou in task.iou
    )
    causes = find_causes(found, scores[0])
    errors = find_errors(found, scores[0], causes)
    queries = list(map(Places(pairs, found, truth, prediction).query, errors))
    return InstanceScores(
        frame=grid.frame, shape=grid.volume_shape, found=found, truth=truth, prediction=prediction,
        scores=scores, bins=tuple(tuple(by_size(found, one, task.size_bounds)) for one in scores),
        intervals=tuple(bootstrap(table, found, one) for one in scores),
        average_precision=_average_precisions(task, found, left_out), voxels=score_voxels(table),
        causes=causes, errors=_located(grid.frame, found, errors, find_voxels(task, queries, shown)),
    )


def _check_counted(task: CountInstances, pairs: Pairs) -> None:
    if not pairs.counts.any():
        raise ConfigError(
            f"No voxel of {task.prediction} and {task.truth} counts: {int(pairs.voxels.sum())} were "
            f"compared, and the masks, or the ids {list(task.ignore)} that are ignored in truth, "
            "exclude all of them. Check that masks lie over the volumes and are not 0 where voxels "
            "should count."
        )


def _average_precisions(
    task: CountInstances, found: Overlaps, left_out: LeftOut
) -> dict[str, float | None]:
    """Return tp / (tp + fp + fn) at 0.5 and 0.75, and its mean from 0.5 to 0.95."""
    at = {
        iou: match_objects(
            found, iou=iou, matching=task.matching, left_out=left_out
        ).average_precision for iou in _RANGE
    }
    values = [value for value in at.values() if value is not None]
    mean = float(np.mean(values)) if values else None
    return {f"{iou:g}": at[iou] for iou in _USUAL_IOUS} | {"0.5:0.95": mean}


def _located(
    frame: Frame, found: Overlaps, errors: list[Error], voxels: list[Triple]
) -> list[LocatedError]:
    """Return errors with their places."""
    size, offset = np.array(frame.voxel_size), np.array(frame.offset)
    return [
        LocatedError(
            error.kind, _ids(found.truth_ids, error.truth),
            _ids(found.prediction_ids, error.prediction), error.voxels, voxel,
            tuple((offset + (np.array(voxel) + 0.5) * size).tolist()),
        )
        for error, voxel in zip(errors, voxels, strict=True)
    ]


def _ids(ids: np.ndarray, places: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(ids[list(places)].tolist())


def find_voxels(task: CountInstances, queries: list[Query], shown: Shown) -> list[Triple]:
    """Return the nearest voxel of every query; reads the blocks that can hold one, one by one."""
    nearest = [None] * len(queries)
    begin = np.array([query.box.offset for query in queries]).reshape(-1, 3)
    end = np.array([query.box.end for query in queries]).reshape(-1, 3)
    grid = task.grid()
    with task.reading() as read:
        for block in shown(grid.blocks(), grid.n_blocks) if queries else ():
            box = block.write_box
            here = ((begin < box.end) & (end > box.offset)).all(axis=1)
            if not here.any():
                continue
            compared = read(box)
            for number in np.flatnonzero(here).tolist():
                voxel = nearest_voxel(
                    queries[number], **compared._asdict(), box=box,
                    voxel_size=grid.frame.voxel_size,
                )
                if voxel is not None and (nearest[number] is None or voxel < nearest[number]):
                    nearest[number] = voxel
    return [found.voxel for found in nearest]

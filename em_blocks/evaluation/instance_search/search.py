"""Try all choices of thresholds, each from the first thing that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from em_blocks.errors import ConfigError, GeometryError, VolumeError
from em_blocks.evaluation.instance_search.cache import Cache, content_of, key_of
from em_blocks.evaluation.instance_search.config import SearchInstances, Values, chosen
from em_blocks.evaluation.instance_search.decoder import Decoder, Maps
from em_blocks.geometry import Box, Nm3
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.object_matching import match_objects, overlaps
from em_blocks.tasks.instances.maps import open_maps
from em_blocks.tasks.instances.merge import MergeOptions
from em_blocks.tasks.instances.segment_instances import SegmentInstances
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.tasks.region import region_of
from em_blocks.volumes.labels import open_labels

MOST_VOXELS = 2**28
"""Of the validation data, some 16 GB."""

_SCORES = ("iou", "precision", "recall", "fscore", "tp", "fp", "fn")


@dataclass(frozen=True)
class Tried:
    """One choice of thresholds.

    Attributes
    ----------
    values : dict
        By keys such as "seeds.foreground".
    scores : list of dict
        Of objects, one for each IoU.
    was_cached : bool
        Whether an earlier search computed them.
    """

    values: Values
    scores: list[dict]
    was_cached: bool

    @cached_property
    def score(self) -> float:
        """The mean of the F1 at all IoUs."""
        return float(np.mean([score["fscore"] or 0.0 for score in self.scores]))

    def document(self) -> dict:
        """As JSON."""
        return {"values": self.values, "score": self.score, "objects": self.scores}


@dataclass(frozen=True)
class Found:
    """All choices that were tried, and the best one."""

    task: SearchInstances
    tried: list[Tried]
    n_truth: int
    merge: MergeOptions | None = None

    @cached_property
    def best(self) -> Tried:
        """The choice with the highest score; of equal ones, that whose neighbours are best.

        Neighbours have the next value of one key. A choice amid good ones depends less on what the
        validation data happen to hold.
        """
        return max(self.tried, key=lambda tried: (tried.score, self._around(tried)))

    @cached_property
    def config(self) -> SegmentInstances:
        """The config of `segment` with the best thresholds, and the weights that were fitted."""
        found = chosen(self.task.segment, self.best.values)
        return found if self.merge is None else found.model_copy(update={"merge": self.merge})

    @property
    def n_cached(self) -> int:
        """Number of choices whose scores an earlier search computed."""
        return sum(tried.was_cached for tried in self.tried)

    def document(self) -> dict:
        """As JSON."""
        return {
            "best": self.best.document(), "ious": list(self.task.ious), "n_truth": self.n_truth,
            "tried": len(self.tried), "cached": self.n_cached,
            "choices": [tried.document() for tried in self.tried],
        }

    def _around(self, tried: Tried) -> float:
        found = [self._scores.get(place) for place in self._next_to(self._place(tried.values))]
        return float(np.mean([score for score in found if score is not None] or [0.0]))

    def _next_to(self, place: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for axis, at in enumerate(place):
            yield from ((*place[:axis], at + step, *place[axis + 1 :]) for step in (-1, 1))

    @cached_property
    def _scores(self) -> dict[tuple[int, ...], float]:
        return {self._place(tried.values): tried.score for tried in self.tried}

    def _place(self, values: Values) -> tuple[int, ...]:
        lists = self.task.grid.lists
        return tuple(sorted(lists[key]).index(value) for key, value in values.items())


def search(
    task: SearchInstances, shown: Callable[[list[Values]], Iterable[Values]] = iter
) -> Found:
    """Try all choices of a search; those of an earlier one are not computed again.

    Parameters
    ----------
    shown : function of the choices
        Returns them, and shows how far it is.

    Raises
    ------
    EmBlocksError
        If maps and truth do not fit each other or into memory, or there is nothing to compare.
    """
    choices = task.choices()
    if not choices:
        raise ConfigError(
            "No combination can be tried: every value of seeds.foreground is below every threshold, "
            "and seeds would lie outside of the objects that grow from them. Add larger values."
        )
    with _opened(task) as trial:
        found = Found(task, [trial(values) for values in shown(choices)], trial.n_truth)
        if not task.fit_merge:
            return found
        return replace(found, merge=trial.options(found.best.values).merge)


class _Trial:
    """Scores choices on validation data in memory."""

    def __init__(
        self, task: SearchInstances, read: Callable[[Nm3], Maps], truth: np.ndarray, voxel_size: Nm3
    ):
        self._task, self._truth = task, truth
        self._decoder, self._cache = Decoder(read, voxel_size), Cache(task.folder / "tried.jsonl")
        self._contents = content_of({**read((0.0, 0.0, 0.0)), "truth": truth})
        self.n_truth = len(np.setdiff1d(truth, [0, *(id % 2**64 for id in task.ignore)]))
        if not self.n_truth:
            raise ConfigError(
                f"{task.truth} has no instance in the region of 'segment', so no choice is better than "
                "another one. Name truth that has some, or another 'roi' there."
            )

    def __call__(self, values: Values) -> Tried:
        key = self._key(chosen(self._task.segment, values))
        known = self._cache.get(key)
        if known is None:
            self._cache.add(key, self._score(self._decoder.instances(self.options(values))))
        return Tried(values, self._cache.get(key) or [], known is not None)

    def options(self, values: Values) -> SegmentInstances:
        """Return the config of a choice, with the weights that suit it if they are to be fitted.

        Where all objects are apart or all are one already, there is nothing to fit, and no weights.
        """
        found = chosen(self._task.segment, values)
        if not self._task.fit_merge:
            return found
        return found.model_copy(update={"merge": self._decoder.fitted(found, self._truth)})

    def _score(self, found: np.ndarray) -> list[dict]:
        table = count_overlaps(segmentation=found, truth=self._truth)
        objects = overlaps(table.without(truth=self._task.ignore))
        scores = [match_objects(objects, iou=iou)._asdict() for iou in self._task.ious]
        return [{name: score[name] for name in _SCORES} for score in scores]

    def _key(self, options: SegmentInstances) -> str:
        return key_of(
            contents=self._contents, smooth_nm=options.smooth_nm, levels=options.levels,
            core_levels=options.core_levels, fit_merge=self._task.fit_merge,
            merge=options.merge and options.merge.model_dump(),
            min_seed_size=options.seeds.min_size, min_size=options.min_size,
            fill_holes=options.fill_holes, max_hole=options.max_hole, ious=self._task.ious,
            ignore=self._task.ignore,
        )


@contextmanager
def _opened(task: SearchInstances) -> Iterator[_Trial]:
    segment = task.segment
    frame, shape = region_of(segment.foreground, segment.roi)
    box = Box((0, 0, 0), shape)
    if box.size > MOST_VOXELS:
        raise ConfigError(
            f"The region of 'segment' has {shape} voxels (z, y, x), and {MOST_VOXELS} are the most that "
            "are searched: they are held in memory, some 60 bytes for each. Give it a 'roi' of the "
            "validation data."
        )
    with ExitStack() as stack:
        truth = stack.enter_context(open_labels(task.truth))
        if not np.allclose(truth.place.voxel_size, frame.voxel_size, rtol=1e-6):
            raise GeometryError(
                f"truth has voxels of {truth.place.voxel_size} nm (z, y, x), but the foreground of "
                f"'segment' {frame.voxel_size}. They are compared voxel by voxel; convert one of them."
            )
        there = truth.place.to_box(frame.to_roi(box))
        if not truth.box.contains(there):
            raise GeometryError(
                f"truth ends inside of the region of 'segment': voxels {there.offset} to {there.end} "
                f"(zyx) are needed, but it has {truth.shape}. Give 'segment' a 'roi' that truth covers."
            )
        specimen = None if segment.mask is None else read_mask(open_mask(segment.mask), frame, box)

        def read(smooth_nm: Nm3) -> Maps:
            with open_maps(segment.model_copy(update={"smooth_nm": smooth_nm}), frame) as maps:
                maps.check(shape)
                found = maps.smoothed(box)
            if specimen is not None:
                found["foreground"] = np.where(specimen, found["foreground"], 0).astype(np.uint8)
            return found

        yield _Trial(task, read, _as_uint64(truth.read(there), truth.path), frame.voxel_size)


def _as_uint64(ids: np.ndarray, path: str) -> np.ndarray:
    if ids.dtype.kind not in "ui":
        raise VolumeError(f"{path} holds {ids.dtype}, but truth must be integer ids; convert it.")
    return ids.astype(np.uint64)

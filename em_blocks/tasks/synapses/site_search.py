"""Sites of synapses in a region of a volume, the same whatever region they are searched in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple, Self

import numpy as np

from em_blocks.geometry import BlockGrid, Box, Nm3, Triple
from em_blocks.kernels.synapses.detection import (
    DetectionRule,
    Detections,
    detect,
    direction_vectors_of,
    steps_to_centres,
)
from em_blocks.tasks.base import BlockReport
from em_blocks.volumes import Volume


class Found(NamedTuple):
    """Detections in one array, and where in the volume it lies."""

    detections: Detections
    box: Box
    truncated: bool

    @property
    def voxel(self) -> np.ndarray:
        """Sites as voxels of the volume, (n, 3) int64."""
        return self.detections.site + np.array(self.box.offset)

    def select(self, rows: np.ndarray) -> Self:
        return self._replace(detections=self.detections.select(rows))

    def vectors(self, volume: Volume, how: Literal["site", "mean"]) -> np.ndarray:
        """Read direction vectors of the sites, (n, 3) nm; of `volume` only the voxels they need."""
        if not len(self.detections):
            return np.empty((0, 3))
        near = _shrunk(self)
        vectors = direction_vectors_of(
            near.detections, volume.read(near.box), scale=volume.scale or 1.0, how=how
        )
        if how == "mean":
            # Every voxel points at the partner from its own place, on average from their centre.
            vectors += steps_to_centres(near.detections) * volume.frame.voxel_size
        return vectors


@dataclass(frozen=True)
class Sites:
    """Sites of a volume as columns.

    Attributes
    ----------
    voxel : (n, 3) int64
        Of the volume (z, y, x).
    score : (n,) float64
    size : (n,) int64
        Voxels of the component.
    truncated : (n,) bool
        Whether it is only a piece of one.
    vector : (n, 3) float64
        From the site to its partner, nm (z, y, x).
    """

    voxel: np.ndarray
    score: np.ndarray
    size: np.ndarray
    truncated: np.ndarray
    vector: np.ndarray

    @classmethod
    def of(cls, found: Sequence[Found], vectors: Sequence[np.ndarray]) -> Self:
        return cls(
            voxel=np.concatenate([part.voxel for part in found]),
            score=np.concatenate([part.detections.score for part in found]),
            size=np.concatenate([part.detections.size for part in found]),
            truncated=np.repeat(
                [part.truncated for part in found], [len(part.detections) for part in found]
            ),
            vector=np.concatenate(vectors),
        )

    def select(self, rows: np.ndarray) -> Self:
        """Return the rows of a mask or of indices."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


Reasons = Mapping[str, np.ndarray]
"""Which rows are to be left out, (n,) bool by the reason's name; the first one counts."""


class LeaveOut:
    """Leaves sites out, and counts those that lie in `box`: others are counted where they lie."""

    def __init__(self, box: Box, counts: dict[str, int]):
        self._box, self._counts = box, counts

    def __call__(self, sites: Found | Sites, reasons: Reasons) -> Found | Sites:
        own, left = inside(sites.voxel, self._box), True
        for name, wrong in reasons.items():
            self._counts[name] = self._counts.get(name, 0) + int((own & left & wrong).sum())
            left = left & ~wrong
        return sites.select(left)


@dataclass(frozen=True)
class SiteSearch:
    """Finds all sites of a box, each from its whole component.

    A component that leaves the array that was read is read again with more context, until nothing
    of it is cut. One that extends over more than `max_extent_nm` is no synapse: it is cut along a
    fixed grid of cells of that size, which starts at the volume's corner, and every piece is a
    truncated site. So all sites are the same for every block grid.

    Attributes
    ----------
    indicator : Volume
    rule : DetectionRule
        Its sizes and scores are ignored: they are undefined for a component cut by the border.
    context_nm, max_extent_nm : (3,) floats
        What is read around a box at first; and how large a component may be. nm (z, y, x).
    """

    indicator: Volume
    rule: DetectionRule
    context_nm: Nm3
    max_extent_nm: Nm3

    def within(self, zone: Box, report: BlockReport) -> list[Found]:
        """Return all sites in `zone`, voxels of the volume."""
        reach = np.repeat(np.array(self.context)[:, None], 2, axis=1)
        while True:
            box = _grown(zone, reach).intersect(self.indicator.box)
            with report.measure("read"):
                values = self._read(box)
            with report.measure("compute"):
                found = self._detect(values)
                cut = self._cut_sides(found, box, zone)
                growing = cut & (reach < self._limit)
                if not growing.any():
                    return self._sites(found, values, box, zone)
                reach = np.where(growing, np.minimum(2 * reach + 1, self._limit), reach)

    @property
    def context(self) -> Triple:
        """Voxels (z, y, x) that are read around a box at first."""
        return self.voxels(self.context_nm)

    @property
    def reach(self) -> Triple:
        """Voxels (z, y, x) around a box beyond which nothing is ever read."""
        # A component that a box cuts is read further, until it is whole or too large.
        return tuple(max(c, int(f)) for c, f in zip(self.context, self._limit[:, 0], strict=True))

    @property
    def _limit(self) -> np.ndarray:
        """Voxels of a component's box, what had a say in it included, as a column."""
        radius = np.array(self.voxels(self.rule.radius_nm or (0.0, 0.0, 0.0)))
        return (np.array(self.voxels(self.max_extent_nm)) + 2 * radius)[:, None]

    def voxels(self, nm: Nm3) -> Triple:
        """Return voxels (z, y, x) that reach at least so far."""
        size = self.indicator.frame.voxel_size
        return tuple(math.ceil(n / v) for n, v in zip(nm, size, strict=True))

    def _read(self, box: Box) -> np.ndarray:
        values = self.indicator.read(box)
        return values if self.indicator.channels is None else values[0]

    def _detect(self, values: np.ndarray) -> Detections:
        rule = replace(self.rule, min_score=None, min_size=1, max_size=None)
        return detect(
            values, scale=self.indicator.scale or 1.0, rule=rule,
            voxel_size=self.indicator.frame.voxel_size,
        )

    def _cut_sides(self, found: Detections, box: Box, zone: Box) -> np.ndarray:
        """Return the sides (3 axes, lower and upper) at which `box` cuts components in `zone`."""
        volume_ends = np.array([
            [begin == 0, end == size]
            for begin, end, size in zip(box.offset, box.end, self.indicator.shape, strict=True)
        ])
        touches = found.touches & ~volume_ends
        rows = np.flatnonzero(touches.any(axis=(1, 2)))
        rows = rows[_reaches(found.select(rows), zone.relative_to(box))]
        return touches[rows].any(axis=0)

    def _sites(self, found: Detections, values: np.ndarray, box: Box, zone: Box) -> list[Found]:
        large = (found.end - found.begin > self._limit[:, 0]).any(axis=1)
        whole = found.select(~large & inside(found.site, zone.relative_to(box)))
        pieces = self._pieces(found.select(large), values, box, zone) if large.any() else []
        return [Found(whole, box, False), *pieces]

    def _pieces(self, found: Detections, values: np.ndarray, box: Box, zone: Box) -> list[Found]:
        """Return sites of components that are too large, cell by cell."""
        own = np.zeros(values.size, values.dtype)
        own[found.voxels] = values.reshape(-1)[found.voxels]
        own = own.reshape(values.shape)
        volume = self.indicator
        cells = BlockGrid(volume.frame, volume.shape, self.voxels(self.max_extent_nm))
        pieces = []
        for cell in (block.write_box for block in cells.within(zone)):
            piece = self._detect(_cropped(own, box, cell))
            piece = piece.select(inside(piece.site, zone.relative_to(cell)))
            pieces.append(Found(piece, cell, True))
        return pieces


def _grown(box: Box, reach: np.ndarray) -> Box:
    """Return `box` with (3 axes, lower and upper) more voxels."""
    return Box.between(np.array(box.offset) - reach[:, 0], np.array(box.end) + reach[:, 1])


def _cropped(values: np.ndarray, box: Box, cell: Box) -> np.ndarray:
    """Return those values of `box` that lie in `cell`; 0 elsewhere."""
    result, shared = np.zeros(cell.shape, values.dtype), box.intersect(cell)
    result[shared.relative_to(cell).slices] = values[shared.relative_to(box).slices]
    return result


def inside(voxels: np.ndarray, box: Box) -> np.ndarray:
    """Return which voxels (n, 3) lie in a box."""
    return ((voxels >= box.offset) & (voxels < box.end)).all(axis=1)


def _reaches(found: Detections, box: Box) -> np.ndarray:
    """Return which detections have a voxel of their component in a box."""
    if not len(found):
        return np.zeros(0, bool)
    voxels = np.stack(np.unravel_index(found.voxels, found.shape), axis=1)
    return np.logical_or.reduceat(inside(voxels, box), found.starts[:-1])


def _shrunk(found: Found) -> Found:
    """Return the same detections in the smallest box that holds their voxels."""
    old = found.detections
    voxels = np.stack(np.unravel_index(old.voxels, old.shape), axis=1)
    begin, end = voxels.min(axis=0), voxels.max(axis=0) + 1
    shape = tuple((end - begin).tolist())
    moved = replace(
        old, site=old.site - begin, begin=old.begin - begin, end=old.end - begin,
        voxels=np.ravel_multi_index(tuple((voxels - begin).T), shape), shape=shape,
    )
    return found._replace(detections=moved, box=Box(begin, shape).shift(found.box.offset))

"""What one source holds: shares of classes, intensities, place, and what is remarkable in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Box
from em_blocks.kernels.evaluation.edge_shift import EdgeShift, edge_shift
from em_blocks.training.data.sources import TrainingData, describe
from em_blocks.training.review.shares import (
    ClassShares,
    class_shares,
    share_of_ids,
    share_of_several,
)

PERCENTILES = (0, 1, 50, 99, 100)
MOST_VOXELS = 4_000_000
"""Of the sections that are looked at for intensities and alignment."""
N_SECTIONS = 3
FAR_VOXELS, BETTER = 3, 1.15
"""A shift is remarkable from so many voxels on, if edges are so many times stronger there."""
LOW_CONTRAST = 0.1
"""Share of the range of a dtype that intensities should use."""


class Crop(NamedTuple):
    """One used box of a source, as a table shows it.

    Attributes
    ----------
    key : str
        "sources" or "validation".
    voxel_size, offset_nm : (3,) float
        nm (z, y, x).
    begin, shape : (3,) int
        Voxels of raw (z, y, x).
    percentiles : dict of int to float
        Of raw, in a few sections.
    classes : dict of name to ClassShares
    ids : dict of name to float
        Share of voxels with an id, of label volumes that are no classes.
    edges : dict of name to EdgeShift
        Of all label volumes that have borders in those sections.
    several : float
        Share of the voxels that are of several classes.
    sha256 : str
        Of the content.
    """

    key: str
    name: str
    voxel_size: tuple[float, ...]
    offset_nm: tuple[float, ...]
    begin: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    percentiles: dict[int, float]
    classes: dict[str, ClassShares]
    ids: dict[str, float]
    edges: dict[str, EdgeShift]
    several: float
    sha256: str

    def remarks(self) -> Iterator[str]:
        """Yield what may be wrong with it, one sentence each."""
        for name, shares in self.classes.items():
            if shares.unknown == shares.total:
                yield f"nothing is known of {name!r}"
            elif not shares.object:
                yield f"no voxel is {name!r}"
            elif not shares.background:
                yield f"no voxel is known to be anything but {name!r}"
        for name, share in self.ids.items():
            if not share:
                yield f"no voxel of {name!r} has an id"
        if self.several:
            yield (
                f"{self.several:.2%} of the voxels are of several classes: with the activation softmax, "
                "`overlap` of the head decides what they are"
            )
        low, high = self.percentiles[1], self.percentiles[99]
        if low == high:
            yield f"raw is {low:g} nearly everywhere"
        elif self.dtype == "uint8" and high - low < LOW_CONTRAST * 255:
            yield f"raw uses {high - low:g} of 256 grey values only"
        for name, found in self.edges.items():
            if max(map(abs, found.shift)) >= FAR_VOXELS and found.gain > BETTER:
                yield (
                    f"borders of {name!r} lie on edges that are {found.gain:.2f} times stronger if they "
                    f"are moved by {found.shift} voxels (y, x): compare the offsets of raw and labels"
                )


def crop_of(data: TrainingData, key: str) -> Crop:
    """Look at a used box: all labels, and a few sections of raw."""
    frame = getattr(data.raw, "frame", None)
    size = tuple(frame.voxel_size) if frame else (1.0, 1.0, 1.0)
    origin = frame.offset if frame else (0.0, 0.0, 0.0)
    raw, sections = _sections(data)
    return Crop(
        key=key, name=data.name, voxel_size=size,
        offset_nm=tuple(o + b * s for o, b, s in zip(origin, data.begin, size, strict=True)),
        begin=data.begin,
        shape=tuple(e - b for b, e in zip(data.begin, data.end, strict=True)),
        dtype=str(data.raw.dtype),
        percentiles=dict(zip(PERCENTILES, np.percentile(raw, PERCENTILES).tolist(), strict=True)),
        classes={name: class_shares(data.labels[name], data) for name in sorted(data.classes)},
        ids={
            name: share_of_ids(voxels, data) for name, voxels in data.labels.items()
            if name not in data.classes
        },
        edges={
            name: found for name, voxels in data.labels.items()
            if (found := edge_shift(raw, np.concatenate([voxels[where] for where in sections])))
        },
        several=share_of_several(data),
        sha256=describe(data)["sha256"],
    )


def _sections(data: TrainingData) -> tuple[np.ndarray, list[tuple[slice, slice, slice]]]:
    """Read raw of a few sections, spread over the box; of large ones their middle."""
    z = np.linspace(data.begin[0], data.end[0] - 1, N_SECTIONS + 2)[1:-1].astype(int)
    side = int(np.sqrt(MOST_VOXELS / N_SECTIONS))
    plane = []
    for begin, end in zip(data.begin[1:], data.end[1:], strict=True):
        cut = max(0, (end - begin - side) // 2)
        plane.append(slice(begin + cut, end - cut))
    boxes = [(slice(n, n + 1), *plane) for n in np.unique(z).tolist()]
    return np.concatenate([data.raw[box] for box in boxes]), boxes


def comparisons(crops: Sequence[Crop], data: Sequence[TrainingData]) -> list[str]:
    """List crops of equal content, and boxes of one volume that overlap: one sentence each."""
    found = []
    for number, (crop, one) in enumerate(zip(crops, data, strict=True)):
        for before, other in zip(crops[:number], data[:number], strict=True):
            names = f"{before.name} ({before.key}) and {crop.name} ({crop.key})"
            if crop.sha256 == before.sha256:
                found.append(f"{names} are the same data{_measured(crop, before)}")
            elif share := overlap(one, other):
                found.append(f"{names} share {share:.1%} of the smaller one{_measured(crop, before)}")
    return found


def _measured(one: Crop, other: Crop) -> str:
    if one.key == other.key:
        return ", which counts twice"
    return ": scores there say nothing about unseen data"


def overlap(one: TrainingData, other: TrainingData) -> float:
    """Compute the share of the smaller of two used boxes of one volume that both have."""
    if getattr(one.raw, "path", None) != getattr(other.raw, "path", "none"):
        return 0.0
    a, b = (Box.between(data.begin, data.end) for data in (one, other))
    return a.intersect(b).size / min(a.size, b.size)

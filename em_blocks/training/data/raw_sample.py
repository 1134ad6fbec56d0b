"""A bounded sample of a raw volume, looked at before any work starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Triple
from em_blocks.kernels.transforms.intensities import Intensities, describe
from em_blocks.volumes import Volume

CUBES_PER_AXIS, SIDE = 4, 64
MOST_BYTES = 8 << 20
"""Of the chunks that one cube may touch: sections of 16,000 voxels are not read 64 at a time."""
CLIPPED = 0.1
"""Share of voxels at one end of the range from which intensities are said to be clipped."""
TAILS = (0.5, 99.5)
"""Percentiles that stand for lowest and highest: a few hot pixels say nothing."""


@dataclass(frozen=True)
class Cube:
    """A few voxels of a volume.

    Attributes
    ----------
    box : Box
    values : (z, y, x) array or None
        None if they could not be read.
    found : Intensities or None
    """

    box: Box
    values: np.ndarray | None
    found: Intensities | None


class RawSample:
    """Up to 64 cubes of up to 64 voxels per axis, spread evenly over a box; always the same.

    Parameters
    ----------
    raw : Volume
        (z, y, x), of any dtype of integers or floats.
    box : Box
        The part of it that is used.

    Raises
    ------
    VolumeError
        If none of the cubes can be read.
    """

    def __init__(self, raw: Volume, box: Box):
        self._raw = raw
        self._errors: list[VolumeError] = []
        with ThreadPoolExecutor(8) as pool:
            parts = pool.map(self._cubes, _boxes(raw, box))
            self.cubes = [cube for found in parts for cube in found]
        if all(cube.values is None for cube in self.cubes):
            raise self._errors[0]

    @cached_property
    def values(self) -> np.ndarray:
        """All finite values, one after the other."""
        values = np.concatenate([c.values.ravel() for c in self.cubes if c.values is not None])
        return values[np.isfinite(values)] if values.dtype.kind == "f" else values

    @cached_property
    def tails(self) -> tuple[float, float]:
        """Nearly the lowest and the highest value."""
        low, high = np.percentile(self.values, TAILS)
        return float(low), float(high)

    def bad(self) -> str | None:
        """Describe where NaN or infinity is; None if all values are numbers."""
        return "; ".join(filter(None, (self._nan(), self._infinite()))) or None

    def useless(self) -> str | None:
        """Say why nothing of the whole sample can be predicted; None if something can be."""
        if self.values.size == 0:
            return "holds no number at all, only NaN and infinity"
        low, high = self.values.min(), self.values.max()
        return f"is {low} everywhere" if low == high and self.bad() is None else None

    def remarks(self) -> list[str]:
        """List the faults of parts of the sample: a line each for NaN, infinity, and so on."""
        found = (
            self._nan(), self._infinite(),
            self._where("constant", lambda c: c.found is not None and c.found.constant),
            self._where("unreadable", lambda c: c.found is None), self._clipped(),
        )
        return [remark for remark in found if remark]

    def place(self, voxel: Triple) -> str:
        """A voxel of the volume, also in nm."""
        return place(self._raw, voxel)

    def _nan(self) -> str | None:
        return self._where("NaN", lambda c: c.found and c.found.nan, lambda c: c.found.first_nan)

    def _infinite(self) -> str | None:
        return self._where(
            "infinite", lambda c: c.found and c.found.infinite, lambda c: c.found.first_infinite
        )

    def _where(
        self, what: str, is_so: Callable[[Cube], object],
        first: Callable[[Cube], Triple] = lambda _: (0, 0, 0),
    ) -> str | None:
        """Count cubes that are (or hold what is) `what`, and name the first ones."""
        bad = [cube for cube in self.cubes if is_so(cube)]
        if not bad:
            return None
        places = [
            self.place(tuple(o + i for o, i in zip(c.box.offset, first(c), strict=True)))
            for c in bad[:3]
        ]
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        verb = "hold voxels that are" if what in ("NaN", "infinite") else "are"
        return (
            f"{len(bad)} of {len(self.cubes)} sampled boxes {verb} {what}, from "
            f"{'; '.join(places)}{more}"
        )

    def _clipped(self) -> str | None:
        uneven = [c.found for c in self.cubes if c.found is not None and not c.found.constant]
        size = sum(found.size for found in uneven)
        share = sum(found.clipped for found in uneven) / size if size else 0.0
        if share < CLIPPED:
            return None
        worst = max(
            (c for c in self.cubes if c.found is not None and not c.found.constant),
            key=lambda c: c.found.clipped / c.found.size,
        )
        return (
            f"{share:.0%} of the sampled voxels are clipped at an end of the range of "
            f"{self._raw.dtype}, most of them in the box from {self.place(worst.box.offset)}"
        )

    def _cubes(self, box: Box) -> list[Cube]:
        """The cube of a box; chunk by chunk where it cannot be read as a whole."""
        try:
            values = self._raw.read(box)
        except VolumeError as error:  # a chunk is broken: its blocks fail, others need not
            parts = _chunks(self._raw, box)
            if len(parts) == 1:
                self._errors.append(error)
                return [Cube(box, None, None)]
            return [cube for part in parts for cube in self._cubes(part)]
        return [Cube(box, values, describe(values))]


def place(raw: Volume, voxel: Sequence[int]) -> str:
    """A voxel as text, by its index and its centre in nm (z, y, x)."""
    centre = tuple(
        round(o + (i + 0.5) * v, 3)
        for o, i, v in zip(raw.frame.offset, voxel, raw.frame.voxel_size, strict=True)
    )
    return f"voxel {tuple(int(i) for i in voxel)} at {centre} nm (zyx)"


def _boxes(raw: Volume, box: Box) -> Iterator[Box]:
    side = _side(raw)
    axes = [
        sorted({
            max(b, _in_chunk(int(corner), s, c))
            for corner in np.linspace(b, max(b, e - s), CUBES_PER_AXIS)
        })
        for b, e, s, c in zip(box.offset, box.end, side, raw.chunk_shape, strict=True)
    ]
    for corner in itertools.product(*axes):
        yield Box(corner, side).intersect(box)


def _chunks(raw: Volume, box: Box) -> list[Box]:
    """The parts of `box` in each chunk of the volume."""
    axes = [
        range(b // c * c, e, c)
        for b, e, c in zip(box.offset, box.end, raw.chunk_shape, strict=True)
    ]
    return [Box(corner, raw.chunk_shape).intersect(box) for corner in itertools.product(*axes)]


def _in_chunk(corner: int, side: int, chunk: int) -> int:
    """`corner` moved back, so that no more chunks are touched than are needed."""
    if side >= chunk:
        return corner // chunk * chunk
    return min(corner, (corner // chunk + 1) * chunk - side)


def _side(raw: Volume) -> Triple:
    """Voxels (z, y, x) of one cube: whole chunks, or a part of one, of a bounded size."""
    side = [max(SIDE // c, 1) * min(c, SIDE) for c in raw.chunk_shape]
    chunk = raw.dtype.itemsize * int(np.prod(raw.chunk_shape))
    for axis in range(3):
        others = np.prod([-(-s // c) for a, (s, c) in enumerate(zip(side, raw.chunk_shape, strict=True))
                          if a != axis])
        most = max(1, int(MOST_BYTES // (chunk * others)))
        side[axis] = min(side[axis], most * raw.chunk_shape[axis])
    return tuple(side)

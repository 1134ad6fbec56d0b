"""Partners as lines in neuroglancer's precomputed annotation format: records, lists, spatial index.

Written from its description,
https://neuroglancer-docs.web.app/datasource/precomputed/annotation.html
Positions are nm in the order (x, y, z) here, as in that format.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from em_blocks.kernels.neuroglancer.shards import murmur
from em_blocks.kernels.synapses.table import Synapses

# int32, because neuroglancer's own reader for Python (2.41) aligns uint32 to 3 bytes.
PROPERTIES = {"score": "float32", "cleft_score": "float32", "size": "int32"}
"""What is stored of every line, beside its ends and its segments, and the type of it there."""
RELATIONSHIPS = ("pre_segment", "post_segment")

# A record as it is stored, then what its indices need: all in words of 4 bytes.
ROW = np.dtype([
    ("post", "<f4", 3), ("pre", "<f4", 3), ("score", "<f4"), ("cleft_score", "<f4"),
    ("size", "<i4"), ("id", "<u8"), ("pre_segment", "<u8"), ("post_segment", "<u8"),
])
_WORDS = ROW.itemsize // 4
_RECORD_WORDS = 9


def rows_of(synapses: Synapses) -> np.ndarray:
    """Return the lines from the postsynaptic to the presynaptic site, an (n,) array of `ROW`.

    A segment of 0 is none: on background, or unmapped. Sizes from 2**31 on become 2**31 - 1.
    """
    rows = np.zeros(len(synapses), ROW)
    for side in ("pre", "post"):
        rows[side] = getattr(synapses, side)[:, ::-1]
        rows[f"{side}_segment"] = np.maximum(getattr(synapses, f"{side}_segment"), 0)
    for name in ("score", "cleft_score", "id"):
        rows[name] = getattr(synapses, name)
    rows["size"] = np.minimum(synapses.size, 2**31 - 1)
    return rows


# -- encoding ------------------------------------------------------------------------------


def single_records(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every line for itself, with the segments at its sites.

    Returns
    -------
    words : (k,) uint32 array
        All values, joined.
    sizes : (n,) int64 array
        Bytes of the value of every row.
    """
    values = np.zeros((len(rows), _RECORD_WORDS + 3 * len(RELATIONSHIPS)), np.uint32)
    values[:, :_RECORD_WORDS] = _words(rows)[:, :_RECORD_WORDS]
    given = np.ones(values.shape, bool)
    for number, name in enumerate(RELATIONSHIPS):  # how many segments: 0 or 1; then the segment
        at = _RECORD_WORDS + 3 * number
        values[:, at] = rows[name] > 0
        values[:, at + 1 : at + 3] = _halves(rows[name])
        given[:, at + 1 : at + 3] = rows[name][:, None] > 0
    return values[given], 4 * given.sum(axis=1)


def lists(rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines in groups, without their segments.

    Parameters
    ----------
    rows : (n,) array of `ROW`
        Those of a group one after the other.
    starts : (m,) int array
        First row of every group.

    Returns
    -------
    words : (k,) uint32 array
        The values of all groups, joined: the number of lines, their records, their ids.
    sizes : (m,) int64 array
        Bytes of the value of every group.
    """
    counts = np.diff(starts, append=len(rows))
    sizes = 2 + (_RECORD_WORDS + 2) * counts
    begins = np.cumsum(sizes) - sizes
    rank = np.arange(len(rows)) - np.repeat(starts, counts)
    records = np.repeat(begins + 2, counts)
    ids = records + np.repeat(_RECORD_WORDS * counts, counts)
    words = np.zeros(sizes.sum(), np.uint32)
    words[begins] = counts
    places = records + _RECORD_WORDS * rank
    words[places[:, None] + np.arange(_RECORD_WORDS)] = _words(rows)[:, :_RECORD_WORDS]
    words[(ids + 2 * rank)[:, None] + np.arange(2)] = _halves(rows["id"])
    return words, 4 * sizes


def _words(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows).view("<u4").reshape(-1, _WORDS)


def _halves(ids: np.ndarray) -> np.ndarray:
    """Return the lower and the upper half of ids, (n, 2)."""
    return np.ascontiguousarray(ids).view("<u4").reshape(-1, 2)


# -- spatial index -------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A level of the spatial index: `shape` cells of `cell` nm each, from the corner `lower`."""

    lower: np.ndarray
    cell: np.ndarray
    shape: np.ndarray

    @classmethod
    def whole(cls, lower: np.ndarray, upper: np.ndarray) -> Grid:
        """Return one cell."""
        lower = np.asarray(lower, float)
        return cls(lower, np.asarray(upper, float) - lower, np.ones(3, np.int64))

    def finer(self) -> Grid:
        """Halve the long sides of the cells, so that they become more of a cube."""
        long = self.cell > self.cell.max() / np.sqrt(2)
        return Grid(self.lower, np.where(long, self.cell / 2, self.cell),
                    np.where(long, self.shape * 2, self.shape))

    def crossed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells that lines pass through; one touched only from outside may be missing.

        Returns
        -------
        numbers : (k,) int64 array
            Which row, from 0; every line has at least one cell.
        codes : (k,) uint64 array
            The compressed Morton code of the cell.
        """
        begin, end = ((rows[side].astype(float) - self.lower) / self.cell for side in ("post", "pre"))
        numbers, middles = _pieces(begin, end)
        cells = begin[numbers] + middles[:, None] * (end - begin)[numbers]
        cells = np.clip(np.floor(cells).astype(np.int64), 0, self.shape - 1)
        codes = self.codes(cells)
        # A line through a corner has a piece of no length there, in the cell before or after.
        other = (np.diff(numbers, prepend=-1) != 0) | (codes != np.roll(codes, 1))
        return numbers[other], codes[other]

    def codes(self, cells: np.ndarray) -> np.ndarray:
        """Return compressed Morton codes of (n, 3) cells, (n,) uint64: bits of x, y, z in turns."""
        codes, place = np.zeros(len(cells), np.uint64), 0
        cells = cells.astype(np.uint64)
        for bit in range(int(self.shape.max() - 1).bit_length()):
            for axis in np.flatnonzero(1 << bit < self.shape):
                codes |= (cells[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
                place += 1
        return codes


def _pieces(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut lines where a coordinate is a whole number.

    Returns
    -------
    numbers : (k,) int64 array
        Line of every piece.
    middles : (k,) float64 array
        Its middle, as a fraction of the line.
    """
    n = len(begin)
    lines, places = [np.arange(n), np.arange(n)], [np.zeros(n), np.ones(n)]
    for a, b in zip(begin.T, end.T, strict=True):
        low, high = np.floor(np.minimum(a, b)), np.floor(np.maximum(a, b))
        counts = (high - low).astype(np.int64)
        line = np.repeat(np.arange(n), counts)
        rank = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
        lines.append(line)
        places.append((low[line] + 1 + rank - a[line]) / (b - a)[line])
    lines, places = np.concatenate(lines), np.clip(np.concatenate(places), 0, 1)
    order = np.lexsort((places, lines))
    lines, places = lines[order], places[order]
    inside = lines[1:] == lines[:-1]
    return lines[1:][inside], ((places[1:] + places[:-1]) / 2)[inside]


def chance(ids: np.ndarray) -> np.ndarray:
    """Return a pseudo-random number in [0, 1) for every id, the same in every run."""
    return (murmur(ids) >> np.uint64(11)) * 2.0**-53

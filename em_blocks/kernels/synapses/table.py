"""Synaptic partners as columns: one row per pair of a presynaptic and a postsynaptic site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self, cast

import numpy as np

UNMAPPED = -1
"""Id of a site that has not been looked up yet, or that no label volume covers."""
BACKGROUND = 0
"""Id of a site that lies in no object."""
TOO_FAR = -2
"""Skeleton of a site whose nearest candidate is farther than the bound."""
LARGEST_ID = 2**63 - 1
"""MongoDB's integers are signed."""

_IDS = (
    "cleft", "pre_supervoxel", "post_supervoxel", "pre_segment", "post_segment", "pre_skeleton",
    "post_skeleton",
)
_MISSING = {"score": np.nan, "size": 0, "cleft_score": np.nan} | dict.fromkeys(_IDS, UNMAPPED)


# Of a column that was not given: replaced by the missing value in every row.
_UNKNOWN = cast(np.ndarray, None)


@dataclass(frozen=True)
class Synapses:
    """A table of n partners. One T-bar with k partners is k rows of one presynaptic position.

    Columns that are not given are filled with what stands for "unknown": nan for scores, 0 for
    `size`, `UNMAPPED` for objects.

    Attributes
    ----------
    id : (n,) int64
        Unique; 0 <= id < 2**63.
    pre, post : (n, 3) float64
        Presynaptic and postsynaptic site, nm (z, y, x).
    score : (n,) float64
    size : (n,) int64
        Voxels of the detected component.
    cleft : (n,) int64
        Id of the synaptic cleft that both sites face.
    cleft_score : (n,) float64
    pre_supervoxel, post_supervoxel, pre_segment, post_segment, pre_skeleton, post_skeleton : (n,) int64
        Objects at the sites: `BACKGROUND`, `UNMAPPED` or an id from 1; a skeleton may be `TOO_FAR`.

    Raises
    ------
    ValueError
        If columns differ in length, or an id is negative or given twice.
    """

    id: np.ndarray
    pre: np.ndarray
    post: np.ndarray
    score: np.ndarray = _UNKNOWN
    size: np.ndarray = _UNKNOWN
    cleft: np.ndarray = _UNKNOWN
    cleft_score: np.ndarray = _UNKNOWN
    pre_supervoxel: np.ndarray = _UNKNOWN
    post_supervoxel: np.ndarray = _UNKNOWN
    pre_segment: np.ndarray = _UNKNOWN
    post_segment: np.ndarray = _UNKNOWN
    pre_skeleton: np.ndarray = _UNKNOWN
    post_skeleton: np.ndarray = _UNKNOWN

    def __post_init__(self):
        n = len(self.id)
        for name in self.columns():
            values = getattr(self, name)
            if values is None:
                values = np.full(n, _MISSING[name])
            # A copy: a frozen table must not change with the array that it was made from.
            values = np.array(values, _dtype(name)).reshape(_shape(name, len(values)))
            if len(values) != n:
                raise ValueError(f"{name} has {len(values)} rows, but there are {n} ids")
            object.__setattr__(self, name, values)
        if n and self.id.min() < 0:
            raise ValueError(f"ids must not be negative, got {self.id.min()}")
        if len(np.unique(self.id)) != n:
            raise ValueError("ids must be unique")

    def __len__(self) -> int:
        return len(self.id)

    @classmethod
    def columns(cls) -> list[str]:
        """Names of all columns."""
        return [field.name for field in fields(cls)]

    @classmethod
    def empty(cls) -> Self:
        return cls(id=np.empty(0), pre=np.empty((0, 3)), post=np.empty((0, 3)))

    @classmethod
    def concatenate(cls, tables: Sequence[Self]) -> Self:
        """All rows of all tables, in their order."""
        if not tables:
            return cls.empty()
        return cls(**{
            name: np.concatenate([getattr(table, name) for table in tables]) for name in cls.columns()
        })

    @property
    def distance(self) -> np.ndarray:
        """Distance of the two sites of every row, nm."""
        return np.linalg.norm(self.pre - self.post, axis=1)

    def select(self, rows: np.ndarray) -> Self:
        """The rows of a mask or of indices."""
        return type(self)(**{name: getattr(self, name)[rows] for name in self.columns()})

    def replace(self, **columns: np.ndarray) -> Self:
        """The same table with other values in some columns."""
        return replace(self, **columns)

    def sorted(self) -> Self:
        """Rows in the order of their ids."""
        return self.select(np.argsort(self.id))

    def flipped(self) -> Self:
        """Presynaptic and postsynaptic exchanged: for data of the other convention."""
        exchanged = {}
        for name in self.columns():
            side, _, rest = name.partition("_")
            other = {"pre": "post", "post": "pre"}.get(side, side)
            exchanged[name] = getattr(self, f"{other}_{rest}" if rest else other)
        return type(self)(**exchanged)


def _dtype(name: str) -> type:
    if name in ("pre", "post", "score", "cleft_score"):
        return np.float64
    return np.int64


def _shape(name: str, n: int) -> tuple[int, ...]:
    return (n, 3) if name in ("pre", "post") else (n,)

"""Tables of how many voxels have certain ids; tables of the blocks of a volume add up to its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

# Tables that wait to be merged, rows at least; see `em_blocks.kernels.evaluation.contingency`.
_WAITING_ROWS = 1 << 20


@dataclass(frozen=True)
class Counts:
    """Numbers of voxels by one or more ids. Tables of disjoint voxels add up.

    The fields are (n,) arrays: `voxels` (int64), and then uint64 ids. Rows are sorted by their ids,
    the first of them first, and each combination of ids occurs once.
    """

    voxels: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    @classmethod
    def ids(cls) -> list[str]:
        """Names of all fields but `voxels`, in the order of sorting."""
        return [field.name for field in fields(cls) if field.name != "voxels"]

    @classmethod
    def empty(cls) -> Self:
        return cls(np.zeros(0, np.int64), *(np.zeros(0, np.uint64) for _ in cls.ids()))

    @classmethod
    def of_rows(cls, voxels: np.ndarray, *ids: np.ndarray) -> Self:
        """The table of rows in any order, some of them about the same ids."""
        if not len(voxels):
            return cls.empty()
        order = np.lexsort(ids[::-1])
        ids = [column[order] for column in ids]
        changes = np.logical_or.reduce([column[1:] != column[:-1] for column in ids])
        starts = np.append(0, np.flatnonzero(changes) + 1)
        sums = np.add.reduceat(voxels[order], starts, dtype=np.int64)
        return cls(sums, *(column[starts] for column in ids))

    @classmethod
    def merged(cls, tables: Iterable[Self]) -> Self:
        """The sum of all tables; memory: some 100 bytes per row of it."""
        total, waiting, rows = cls.empty(), [], 0
        for table in tables:
            waiting.append(table)
            rows += len(table)
            if rows > max(_WAITING_ROWS, len(total)):
                total, waiting, rows = cls._sum([total, *waiting]), [], 0
        return cls._sum([total, *waiting])

    @classmethod
    def _sum(cls, tables: list[Self]) -> Self:
        names = ["voxels", *cls.ids()]
        return cls.of_rows(*(np.concatenate([getattr(t, name) for t in tables]) for name in names))

    def rows(self, chosen: np.ndarray) -> Self:
        """The rows of a mask."""
        return type(self)(self.voxels[chosen], *(getattr(self, name)[chosen] for name in self.ids()))

    def columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in [*self.ids(), "voxels"]}


@dataclass(frozen=True)
class Sizes(Counts):
    """Voxels of each object."""

    id: np.ndarray

"""Holes of instances, found before these have their final labels."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import fastremap
import numpy as np
from pydantic import Field

from em_blocks.config import StorePath
from em_blocks.geometry import Box
from em_blocks.kernels.components.runs import find_runs, paint_runs, replaced
from em_blocks.outputs import TableOutput
from em_blocks.tasks.components.join_blocks import Decided
from em_blocks.tasks.instances.merge import merges
from em_blocks.tasks.objects.measures import WHOLE
from em_blocks.tasks.objects.steps import FindGaps, JoinGaps
from em_blocks.volumes.stores.tables import BlockTables, Columns


class FindInstanceGaps(FindGaps):
    """As `FindGaps`, of labels of which some are erased and some were merged."""

    kind: Literal["find_instance_gaps"]
    erased: StorePath = Field(description="Folder of the table of objects that are too small.")

    merged: StorePath | None = Field(None, description="Folder of the table of merged labels.")

    def inputs(self) -> dict:
        return super().inputs() | {
            name: TableOutput("", path).stored_fingerprint() for name, path in self._tables.items()
        }

    def sources(self) -> dict[str, str]:
        return super().sources() | self._tables

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "erased", "merged"}

    def ids_in(self, box: Box) -> np.ndarray:
        """Return labels after merging; 0 beyond the volume and of what is erased."""
        labels = super().ids_in(box)
        if len(self._erased):
            runs = find_runs(labels)
            gone = np.isin(runs.ids, self._erased)
            nothing = np.zeros(int(gone.sum()), labels.dtype)
            paint_runs(labels.ravel(), runs.first[gone], runs.lengths[gone], nothing)
        if self._merged:
            labels = fastremap.remap(labels, self._merged, preserve_missing_labels=True)
        return labels

    @property
    def _tables(self) -> dict[str, str]:
        return {"erased": self.erased} | ({} if self.merged is None else {"merged": self.merged})

    @cached_property
    def _merged(self) -> dict[int, int]:
        return {} if self.merged is None else merges(self.merged)

    @cached_property
    def _erased(self) -> np.ndarray:
        return BlockTables(self.erased).read(WHOLE)["label"].astype(np.uint32)


class JoinInstanceGaps(JoinGaps):
    """As `JoinGaps`, but holes get the final labels of their objects."""

    kind: Literal["join_instance_gaps"]
    numbers: StorePath = Field(description="Folder of the table of numbers of all objects.")

    def inputs(self) -> dict:
        return super().inputs() | {"numbers": TableOutput("", self.numbers).stored_fingerprint()}

    def sources(self) -> dict[str, str]:
        return super().sources() | {"numbers": self.numbers}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "numbers"}

    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        found = super().decide(parts, edges)
        table = BlockTables(self.numbers).read(WHOLE)
        ids = np.where(found.changed, found.ids, 0)
        numbers, _ = replaced(ids, table["label"], table["number"])
        return found._replace(ids=numbers.astype(np.int64))

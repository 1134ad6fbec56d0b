"""Which seeds there are in the whole volume, and which components need a flood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt

from em_blocks.config import StorePath
from em_blocks.geometry import Block
from em_blocks.kernels.components.join_components import JoinedParts, join_parts
from em_blocks.kernels.instances.flood import UNDECIDED
from em_blocks.kernels.instances.seeds import Decided, Nested, decide
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.join_blocks import read_edges, read_parts, write_rows_of_blocks
from em_blocks.tasks.instances.landscape import COMPONENTS, Kind
from em_blocks.tasks.objects.made import ReducesEarlierStep
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import Columns

_COLUMNS = ("id", "size", "voxel")


class _Joined(NamedTuple):
    """Parts of all blocks, joined over the whole volume."""

    parts: Columns
    first_row: np.ndarray
    whole: JoinedParts


class JoinSeeds(ReducesEarlierStep):
    """A task in one piece: the label of every component of the mask, and of every seed and core.

    Writes one table of each for each row of blocks, as `write_rows_of_blocks` says: voxel (the first
    of a part in its block) and id. A component without a seed, or too small, has no row. One with
    several seeds has the id `UNDECIDED`, and its seeds have rows, or the cores of those that have
    several. Memory: some 150 bytes for every part in a block.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["join_seeds"]
    tables: StorePath = Field(description="Folder of the tables that `mark_instances` wrote.")
    kinds: tuple[Kind, ...] = Field(description="Of which there are tables, the outermost first.")
    min_seed_size: PositiveInt = Field(description="Voxels that a seed has at least.")
    min_size: PositiveInt = Field(description="Voxels that an object has at least.")

    def sources(self) -> dict[str, str]:
        return super().sources() | {
            f"tables of {kind}": self._folder(kind) for kind in self.kinds
        }

    def inputs(self) -> dict:
        return super().inputs() | {
            kind: TableOutput("", self._folder(kind)).stored_fingerprint()
            for kind in self.kinds
        }

    def grown_inputs(self) -> set[str]:
        return {"tables"}  # a folder for all tables of a job

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "tables"}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(kind, store.join(self.output, kind)) for kind in self.kinds]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                levels = [self._joined(kind) for kind in self.kinds]
            with report.measure("compute"):
                found = self._decided(levels)
                labels = [of[level.whole.member] for of, level in zip(found, levels, strict=False)]
            with report.measure("write"):
                for kind, level, ids in zip(self.kinds, levels, labels, strict=True):
                    chosen = ids != 0 if kind == COMPONENTS else ids != UNDECIDED
                    write_rows_of_blocks(
                        kind, store.join(self.output, kind),
                        {"voxel": level.parts["voxel"], "id": ids}, chosen, level.first_row,
                        block=block, report=report, grid=self.parts_grid,
                    )
            report.counts |= _counts(found)

        yield process

    def _joined(self, kind: str) -> _Joined:
        folder = store.join(self.tables, kind)
        columns = _COLUMNS if kind == COMPONENTS else (*_COLUMNS, "within")
        parts, first_row = read_parts(folder, self.keys_of_parts, columns)
        edges = read_edges(folder, self.keys_of_parts, first_row)
        return _Joined(parts, first_row, join_parts(parts["id"], parts["size"], parts["voxel"], edges))

    def _decided(self, levels: list[_Joined]) -> Decided:
        return decide(
            levels[0].whole.sizes, *(_nested(*pair) for pair in pairwise(levels)),
            min_seed_size=self.min_seed_size, min_size=self.min_size,
        )

    def _folder(self, kind: str) -> str:
        return store.join(self.tables, kind, "parts")


def _nested(outer: _Joined, inner: _Joined) -> Nested:
    """Return seeds in their components, or cores in their seeds, from the parts of all blocks."""
    begins = np.repeat(outer.first_row[:-1], np.diff(inner.first_row))
    within = np.zeros(len(inner.whole.sizes), np.int64)
    within[inner.whole.member] = outer.whole.member[begins + inner.parts["within"] - 1]
    return Nested(inner.whole.sizes, inner.whole.first, within)


def _counts(found: Decided) -> dict[str, int]:
    labels = np.append(found.seeds, found.cores)
    return {
        "components": len(found.components), "without_seed": int((found.components == 0).sum()),
        "with_several_seeds": int((found.components == UNDECIDED).sum()),
        "seeds": int((labels != UNDECIDED).sum()),
        "small_seeds": int((found.seeds == UNDECIDED).sum()),
    }

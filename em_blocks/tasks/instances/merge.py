"""Merge the fragments of a volume that are one instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath, StrictModel
from em_blocks.geometry import Block
from em_blocks.kernels.instances.boundaries import Boundaries, added
from em_blocks.kernels.instances.merging import Fragments, Model, merged
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.objects.made import ReducesEarlierStep
from em_blocks.tasks.objects.measures import WHOLE
from em_blocks.tasks.reduce import joined, read_tables
from em_blocks.volumes.stores.tables import BlockTables

Feature = Literal[
    "contour_10", "contour_50", "contour_90", "distance_50", "distance_90", "area_z", "area_yx",
    "smaller", "larger",
]


class MergeOptions(StrictModel):
    """Which fragments are merged: a logistic regression on what lies between two of them."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Fragments are merged where they are two objects less probably than this."
    )
    bias: float = Field(description="Log odds that a boundary of zeros lies between two objects.")
    weights: dict[Feature, float] = Field(
        description="What each feature of a boundary adds to the log odds: percentiles of contour and "
        "distance (0..1) along it, logarithms of its area across z and in plane (nm2) and of the "
        "volumes of both sides (nm3)."
    )


class MergeFragments(ReducesEarlierStep):
    """A task in one piece: which fragments become one object.

    The table has a row for every fragment that becomes another: label (before) and into. Memory: some
    700 bytes for every boundary in a block.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["merge_fragments"]
    boundaries: StorePath = Field(description="Folder of the table of boundaries.")
    tables: StorePath = Field(description="Folder of the table of fragments of every block.")
    merge: MergeOptions

    def sources(self) -> dict[str, str]:
        return super().sources() | {"boundaries": self.boundaries, "tables": self.tables}

    def inputs(self) -> dict:
        read = {"boundaries": self.boundaries, "sizes": self.tables}
        return super().inputs() | {
            name: TableOutput("", path).stored_fingerprint() for name, path in read.items()
        }

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "boundaries", "tables"}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput("merged", self.output)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        model = Model(self.merge.bias, self.merge.weights)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                rows = joined(read_tables(self.boundaries, self.keys_of_parts), Boundaries._fields)
                fragments = self._fragments()
            with report.measure("compute"):
                found = added(Boundaries(**rows))
                into = merged(
                    found, fragments, model, threshold=self.merge.threshold,
                    voxel_size=self.place[0].voxel_size,
                )
                changed = into != fragments.ids
            with report.measure("write"):
                columns = {"label": fragments.ids[changed], "into": into[changed]}
                report.write_table("merged", BlockTables(self.output), block, columns)
            report.counts |= {
                "fragments": len(into), "boundaries": len(found.u), "merged": int(changed.sum()),
            }

        yield process

    def _fragments(self) -> Fragments:
        rows = joined(read_tables(self.tables, self.keys_of_parts), ("ids", "voxels"))
        ids, member = np.unique(rows["ids"], return_inverse=True)
        voxels = np.zeros(len(ids), np.int64)
        np.add.at(voxels, member, rows["voxels"])
        return Fragments(ids, voxels)


def merges(tables: str) -> dict[int, int]:
    """Read the table of `MergeFragments`: what labels become that became another."""
    table = BlockTables(tables).read(WHOLE)
    return dict(zip(table["label"].tolist(), table["into"].tolist(), strict=True))

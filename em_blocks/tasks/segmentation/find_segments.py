"""Segments at a threshold: the merge forest, cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, BlockGrid
from em_blocks.kernels.segmentation.graph_rows import dense
from em_blocks.kernels.segmentation.merge_tree import cut
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.segmentation.super_blocks import SuperBlockTask
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class FindSegments(SuperBlockTask):
    """Segment of every fragment at one threshold, from the last level of the forest down.

    A cluster of a super-block that the level above merged takes the segment it got there. Level 0
    writes the look-up tables (``fragment``, ``segment``) that relabelling needs, one per
    super-block. A segment is named by its smallest fragment.
    """

    kind: Literal["find_segments"]
    forest: StorePath = Field(description="Folder of the merge forest.")
    above: StorePath | None = Field(
        None, description="Folder of the look-up tables with the level above. Default: output."
    )
    above_shape: Shape3 | None = Field(None, description="Voxels of a super-block one level above.")
    threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Clusters merge up to this 1 - affinity."
    )

    def sources(self) -> dict[str, str]:
        read = {"merge forest": store.join(self.forest, str(self.level), "merges")}
        if self.level == 0:
            read["tables of fragments"] = self.fragment_tables
        else:
            read["tables of nodes"] = store.join(self.forest, str(self.level - 1), "nodes")
        if not self.last:
            read["look-up tables above"] = self._above_folder
        return super().sources() | read

    def inputs(self) -> dict:
        merges = TableOutput("merges", store.join(self.forest, str(self.level), "merges"))
        inputs = {"merges": merges.stored_fingerprint()}
        if not self.last:
            inputs["above"] = TableOutput("above", self._above_folder).stored_fingerprint()
        return inputs

    def output_specs(self) -> list[TableOutput]:
        return [
            TableOutput(
                "segment_table", self._folder(self.level), rows_per_voxel=0.003,
                attributes={
                    "fragments": fingerprint_of(self.fragments),
                    "threshold": self.threshold,
                },
            )
        ]

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "above", "like", "fragments", "fragment_tables", "forest"}

    def relocated(self, folder: Path) -> Self:
        return self.model_copy(update={
            "output": str(folder / "lut"), "above": self.above or self.output, "run_dir": folder,
        })

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        merges = BlockTables(store.join(self.forest, str(self.level), "merges"))
        output = BlockTables(self._folder(self.level))

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                nodes, forest = self._nodes(block), merges.read(block.key)
                above = self._above(block)
            with report.measure("compute"):
                columns = segments_of(nodes, forest, above, self.threshold)
            with report.measure("write"):
                report.write_table("segment_table", output, block, columns)
            roots = columns["fragment"] == columns["segment"]
            report.counts["segments" if self.level == 0 else "clusters"] = int(roots.sum())

        yield process

    def _nodes(self, block: Block) -> np.ndarray:
        """Read the nodes that this super-block clustered."""
        parts = self.parts(block)
        if self.level == 0:
            tables, name = BlockTables(self.fragment_tables), "fragment"
        else:
            tables = BlockTables(store.join(self.forest, str(self.level - 1), "nodes"))
            name = "node"
        found = [tables.read(key, [name])[name] for key in parts]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def _above(self, block: Block) -> Columns:
        if self.last:
            return {"fragment": np.zeros(0, np.int64), "segment": np.zeros(0, np.int64)}
        grid = BlockGrid(self._volume.frame, self._volume.shape, self.above_shape)
        (parent,) = grid.within(block.write_box)
        return BlockTables(self._above_folder).read(parent.key)

    @property
    def _above_folder(self) -> str:
        return store.join(self.above or self.output, str(self.level + 1))


def segments_of(nodes: np.ndarray, merges: Columns, above: Columns, threshold: float) -> Columns:
    """The segment of every node of a super-block.

    Parameters
    ----------
    nodes : (n,) int64 array
        Sorted.
    merges : columns
        ``a``, ``b``, ``affinity`` of this super-block.
    above : columns
        ``fragment``, ``segment`` of the level above; what it does not list kept its name.
    threshold : float
        Merges of at most this 1 - affinity count.

    Returns
    -------
    columns
        ``fragment`` (the nodes) and ``segment``.
    """
    ids, (own, a, b) = dense(nodes, merges["a"], merges["b"])
    # Merging never goes on with a stronger edge than before, so a cluster that the level above
    # merged at this threshold is whole here, and has its name.
    cluster = ids[cut(len(ids), a, b, merges["affinity"] >= 1 - threshold)][own]
    segment = cluster.copy()
    if len(above["fragment"]):
        place = np.searchsorted(above["fragment"], cluster)
        known = above["fragment"].take(place, mode="clip") == cluster
        segment[known] = above["segment"][place[known]]
    return {"fragment": nodes, "segment": segment}

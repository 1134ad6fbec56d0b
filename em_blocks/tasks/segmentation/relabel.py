"""Replace the ids of a volume by a look-up table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.segmentation.extract_fragments import check_fragments
from em_blocks.tasks.segmentation.look_up_table import LookUpTable, check_made_for, relabelled
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables


class Relabel(BlockwiseTask):
    """Segments from fragments, or any other change of ids; 0 stays 0.

    The look-up table is cut like a block grid (its header says how), and a block loads only
    those pieces that lie in its box.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels", "tables", "lut",)

    kind: Literal["relabel"]
    labels: VolumeRef = Field(description="Volume of ids (fragments).")
    like: VolumeRef | None = Field(
        None, description="Volume of the same voxels, if the labels are made by an earlier step."
    )
    tables: StorePath | None = Field(
        None, description="Tables of the labels by blocks of this shape; then lost labels are noticed."
    )
    lut: StorePath = Field(
        description="Folder of the look-up tables, columns fragment and segment, sorted by fragment."
    )
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        volume = Volume.open(self.like or self.labels)
        return BlockGrid(volume.frame, volume.shape, self.block_shape)

    def inputs(self) -> dict:
        return {
            "labels": fingerprint_of(self.labels),
            "lut": TableOutput("lut", self.lut).stored_fingerprint(),
        }

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "segments", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "labels", "like", "tables", "lut"}

    def check(self) -> None:
        if self.like is not None and TableOutput("lut", self.lut).header() is None:
            return  # an earlier step makes it
        check_made_for(self.lut, self.labels)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output = Volume.open(self.output, mode="r+")
        listed = self.tables and BlockTables(self.tables)

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                ids = self._labels.read(block.write_box)
                if listed:
                    voxels = listed.read(block.key, ["voxels"])["voxels"]
                    check_fragments(ids, voxels, block, volume=self.labels, tables=self.tables)
                pieces = self._lut.load(block.write_box)
            with report.measure("compute"):
                segments = relabelled(ids, pieces, self.lut)
            with report.measure("write"):
                report.write("segments", output, block.write_box, segments)

        yield process

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)

    @cached_property
    def _lut(self) -> LookUpTable:
        return LookUpTable(self.lut, self._labels.frame, self._labels.shape)

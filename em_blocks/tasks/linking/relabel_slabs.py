"""One volume of objects, of slabs whose labels are linked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import Block, Box
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.linking.link_labels import key_of_slab
from em_blocks.tasks.linking.of_slabs import OfSlabs
from em_blocks.tasks.linking.slabs import Slab
from em_blocks.tasks.segmentation.look_up_table import relabelled
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns


class RelabelSlabs(OfSlabs):
    """Last step: all slabs as one volume, with the ids of objects."""

    kind: Literal["relabel_slabs"]
    objects: StorePath = Field(description="Folder of the look-up tables that `link_labels` wrote.")
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def sources(self) -> dict:
        return super().sources() | {"look-up tables": self.objects}

    def inputs(self) -> dict:
        objects = TableOutput("", self.objects)
        return super().inputs() | {"objects": objects.stored_fingerprint()}

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "linked", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "objects"}

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output, tables = Volume.open(self.output, mode="r+"), _Tables(self.objects)

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box
            slabs = self.whole.near(box)
            with report.measure("read"):
                parts = [(slab, slab.read(slab.box.intersect(box))) for slab in slabs]
                found = tables.of(slabs)
            with report.measure("compute"):
                values = self._relabelled(box, parts, found)
            with report.measure("write"):
                report.write("linked", output, box, values)

        yield process

    def _relabelled(
        self, box: Box, parts: list[tuple[Slab, np.ndarray]], tables: dict[int, Columns]
    ) -> np.ndarray:
        values = np.zeros(box.shape, np.uint64)
        for slab, ids in parts:
            inside = slab.box.intersect(box).relative_to(box)
            values[inside.slices] = relabelled(ids, [tables[slab.number]], self.objects)
        return values


class _Tables:
    """Look-up tables of slabs; those of the block before are kept, since neighbours need the same."""

    def __init__(self, folder: str):
        self._tables, self._loaded = BlockTables(folder), {}

    def of(self, slabs: list[Slab]) -> dict[int, Columns]:
        """Return the tables of these slabs, by their numbers."""
        self._loaded = {
            slab.number: self._loaded.get(slab.number) or self._tables.read(key_of_slab(slab.number))
            for slab in slabs
        }
        return self._loaded

"""Flood the components with several seeds, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.errors import VolumeError
from em_blocks.geometry import Block, Box, Triple, triple
from em_blocks.kernels.instances.flood import UNDECIDED, flood
from em_blocks.kernels.instances.numbers import sizes_of
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.components.find_parts import flat_voxels
from em_blocks.tasks.objects.made import OfEarlierStep
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

FIRST_MARGIN_NM = 200.0
"""What is seen around a block at first: the seeds of most objects are nearer to their border."""

MOST_VOXELS = 2**28
"""Of a box that is flooded, some 6 GB: the memory of a worker is bounded."""


class FloodInstances(OfEarlierStep):
    """Give every voxel of a component with several seeds to one of them.

    A block is flooded with a margin around it, and what that does not tell (see
    `em_blocks.kernels.instances.flood`) with a larger one, until every voxel of the block has the label
    that it has in the whole volume. The table lists the objects in the block: ids, voxels, and first,
    the index of the first one in the flat volume.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "tables"})
    reads: ClassVar[tuple[str, ...]] = ("labels", "landscape")

    kind: Literal["flood_instances"]
    landscape: VolumeRef = Field(description="Volume that `mark_instances` wrote.")
    output: StorePath = Field(description="Array to make.")
    tables: StorePath = Field(description="Folder of the table of objects.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def inputs(self) -> dict:
        return super().inputs() | {"landscape": fingerprint_of(self.landscape)}

    @classmethod
    def locations(cls) -> set[str]:
        return {*super().locations(), "landscape", "tables"}

    def output_specs(self) -> list[VolumeOutput | TableOutput]:
        return [
            VolumeOutput(
                "flooded", self.output, "uint32", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
            ),
            TableOutput("sizes", self.tables),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def read_context(self) -> Triple:
        return triple(max(1, round(FIRST_MARGIN_NM / v)) for v in self.place[0].voxel_size)

    def read_reach(self) -> Triple:
        return self.place[1]  # as far as a component goes on without a seed

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(self.read_context()).shape

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, landscape = Volume.open(self.labels), Volume.open(self.landscape)
        output, tables = Volume.open(self.output, mode="r+"), BlockTables(self.tables)

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box
            with report.measure("read"):
                found = labels.read(box)
            with report.measure("compute"):  # what is read depends on what is found
                floods = self._complete(found, box, labels, landscape)
                rows = rows_of(found, box, labels.shape)
            with report.measure("write"):
                report.write("flooded", output, box, found)
                report.write_table("sizes", tables, block, rows)
            report.counts["floods"] = floods

        yield process

    def _complete(self, found: np.ndarray, box: Box, labels: Volume, landscape: Volume) -> int:
        """Flood what is undecided in a block, and return how many floods that took."""
        margin, floods = self.read_context(), 0
        while (open_box := box_of(found == UNDECIDED, box)) is not None:
            seen = open_box.grow(margin).intersect(labels.box)
            if seen.size > MOST_VOXELS:
                raise _too_large(open_box, seen)
            given, here = labels.read(seen), found[open_box.relative_to(box).slices]
            flood(landscape.read(seen), given, open_sides=_open_sides(seen, labels.shape))
            given = given[open_box.relative_to(seen).slices]
            np.copyto(here, given, where=here == UNDECIDED)
            if seen == labels.box and (here == UNDECIDED).any():
                raise _without_seeds(open_box)
            margin, floods = triple(2 * m for m in margin), floods + 1
        return floods


def box_of(chosen: np.ndarray, box: Box) -> Box | None:
    """Return the smallest box of the chosen voxels of `box`; None where there are none."""
    bounds = []
    for axis in range(3):
        places = np.flatnonzero(chosen.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(places):
            return None
        bounds.append((places[0], places[-1] + 1))
    return Box.between(*zip(*bounds, strict=True)).shift(box.offset)


def rows_of(labels: np.ndarray, box: Box, shape: Triple) -> Columns:
    """Return the objects of a block, with their first voxel in the flat volume of `shape`."""
    found = sizes_of(labels)
    return found._replace(first=flat_voxels(found.first, box, shape))._asdict()


def _open_sides(box: Box, shape: Triple) -> list[tuple[bool, bool]]:
    """Return on which sides a volume of `shape` goes on beyond a box."""
    return [(o > 0, e < n) for o, e, n in zip(box.offset, box.end, shape, strict=True)]


def _too_large(box: Box, seen: Box) -> VolumeError:
    return VolumeError(
        f"The voxels {box.offset} to {box.end} (zyx) belong to a component with several seeds, but none "
        f"of them is near: to tell which is the nearest, {seen.shape} voxels (z, y, x) would have to be "
        f"flooded at once, and a worker has memory for {MOST_VOXELS}. The mask leaks into what is no "
        "object, or objects have no seeds: raise 'threshold', or lower the thresholds of 'seeds'."
    )


def _without_seeds(box: Box) -> VolumeError:
    return VolumeError(
        f"Among the voxels {box.offset} to {box.end} (zyx) is a component whose seeds are missing in "
        "the stored labels, so no flood can reach it: blocks are damaged or were replaced. Find them "
        "with `em-blocks verify CONFIG`, then run the same command again."
    )

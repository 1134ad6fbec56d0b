"""Mask and seeds of every block, and how they are connected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.instances.decode import FACES
from em_blocks.kernels.instances.landscape import SEED
from em_blocks.kernels.instances.smooth import reach
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import tables_of_parts
from em_blocks.tasks.instances.maps import Maps, open_maps, sigma_of
from em_blocks.tasks.instances.options import MapOptions
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.tasks.region import region_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

_ONE = (1, 1, 1)

COMPONENTS, SEEDS = "components", "seeds"
"""Tables of the connected parts of mask and seeds; in each the tables of `FindParts`."""

TABLES = ("parts", "faces", "links")


class MarkInstances(MapOptions, BlockwiseTask):
    """First step of instances: the landscape, and the connected parts of mask and seeds.

    The landscape is one byte per voxel: 0 background, 255 a seed, 1..254 other voxels of objects, see
    `em_blocks.kernels.instances.landscape`. Tables are those of `FindParts`, for the voxels of the mask
    (``components/...``) and for seeds (``seeds/...``); parts of seeds have a further column, ``within``:
    the part of the mask that they lie in.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "tables"})
    reads: ClassVar[tuple[str, ...]] = ("foreground", "contour", "distance", "specimen")

    kind: Literal["mark_instances"]
    foreground: VolumeRef = Field(description="As in the config of all steps.")
    specimen: VolumeRef | None = Field(None, description="Outside of it there are no objects.")
    roi: RoiConfig | None = Field(None, description="Region, nm (z, y, x). Default: all.")
    output: StorePath = Field(description="Array to make.")
    tables: StorePath = Field(description="Folder of the tables.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.place, self.block_shape)

    @cached_property
    def place(self) -> tuple[Frame, Triple]:
        """Frame and shape, voxels (z, y, x), of the region."""
        return region_of(self.foreground, self.roi)

    def inputs(self) -> dict:
        with self._opened() as maps:
            found = {
                name: {**prediction.identity, "shape": list(prediction.shape),
                       "dtype": str(prediction.dtype), "offset": list(prediction.place.offset),
                       "voxel_size": list(prediction.place.voxel_size)}
                for name, prediction in maps.opened.items()
            }
        if self.specimen is not None:
            specimen = open_mask(self.specimen)
            found["specimen"] = {"fingerprint": specimen.attributes.get("fingerprint"),
                                 "shape": list(specimen.shape), "offset": list(specimen.offset)}
        return found

    def output_specs(self) -> list[VolumeOutput | TableOutput]:
        return [
            VolumeOutput(
                "landscape", self.output, "uint8", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.2,
            ),
            *(TableOutput(f"{kind}_{name}", store.join(self.tables, kind, name))
              for kind in (COMPONENTS, SEEDS) for name in TABLES),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "tables"}

    def read_context(self) -> Triple:
        sigma = sigma_of(self.smooth_nm, self.place[0].voxel_size)
        return tuple(r + 1 for r in reach(sigma))

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(self.read_context()).shape

    def check(self) -> None:
        with self._opened() as maps:
            maps.check(self.place[1])

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output = Volume.open(self.output, mode="r+")
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()[1:]}
        with self._opened() as maps:

            def process(block: Block, report: BlockReport) -> None:
                with report.measure("compute"):  # one map is read after the other
                    grown = self._landscape(maps, block.write_box.grow(_ONE))
                    found = tables_of_block(grown, block.write_box, self.place[1])
                with report.measure("write"):
                    report.write("landscape", output, block.write_box, grown[1:-1, 1:-1, 1:-1])
                    for name, columns in found.items():
                        report.write_table(name, tables[name], block, columns)
                report.counts["voxels"] = int(found["components_parts"]["size"].sum())
                report.counts["seed_voxels"] = int(found["seeds_parts"]["size"].sum())

            yield process

    def _landscape(self, maps: Maps, box: Box) -> np.ndarray:
        """Return the landscape of a box; 0 beyond the region and outside of the specimen."""
        found = np.zeros(box.shape, np.uint8)
        inside = box.intersect(Box((0, 0, 0), self.place[1]))
        if self.specimen is not None:
            kept = read_mask(self._specimen, self.place[0], inside)
            if not kept.any():
                return found
        values = maps.landscape(inside)
        if self.specimen is not None:
            values[~kept] = 0
        found[inside.relative_to(box).slices] = values
        return found

    def _opened(self):
        return open_maps(self, self.place[0])

    @cached_property
    def _specimen(self) -> Volume:
        return open_mask(self.specimen)


def tables_of_block(grown: np.ndarray, box: Box, shape: Triple) -> dict[str, Columns]:
    """Return the tables of one block.

    Parameters
    ----------
    grown : (z + 2, y + 2, x + 2) uint8 array
        Landscape of the block `box` and one voxel around it.
    shape : (3,) int
        Voxels of the region.
    """
    found, own = {}, (slice(1, -1),) * 3
    chosen = {COMPONENTS: (grown > 0).view(np.uint8), SEEDS: (grown == SEED).view(np.uint8)}
    parts = {name: find_parts(values[own], FACES) for name, values in chosen.items()}
    for kind, values in chosen.items():
        tables = tables_of_parts(values, parts[kind], box, shape, FACES)
        found |= {f"{kind}_{name}": columns for name, columns in tables.items()}
    within = parts[COMPONENTS].numbers.ravel()[parts[SEEDS].first]
    found[f"{SEEDS}_parts"]["within"] = within.astype(np.int64)
    return found

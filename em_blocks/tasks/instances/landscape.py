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
from em_blocks.kernels.instances.decode import FACES, nested
from em_blocks.kernels.instances.depth import depth_reach, is_deep
from em_blocks.kernels.instances.landscape import with_cores
from em_blocks.kernels.instances.smooth import reach
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import tables_of_parts
from em_blocks.tasks.instances.maps import Maps, open_maps, sigma_of
from em_blocks.tasks.instances.options import MapOptions, SeedOptions
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.tasks.region import region_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

_ONE = (1, 1, 1)

KINDS = (COMPONENTS, SEEDS, CORES) = ("components", "seeds", "cores")
"""Tables of the connected parts of mask, seeds and cores; in each the tables of `FindParts`."""

Kind = Literal["components", "seeds", "cores"]

TABLES = ("parts", "faces", "links")


class MarkInstances(MapOptions, BlockwiseTask):
    """First step of instances: the landscape, and the connected parts of mask, seeds and their cores.

    The landscape is one byte per voxel: 0 background, 255 a seed, 1..254 other voxels of objects, see
    `em_blocks.kernels.instances.landscape`. With `seeds.cores` or `seeds.neck_nm`, 255 are cores of
    seeds (with `neck_nm`: voxels that lie half of it deep in the mask), and 254 are the other ones.
    Tables are those of `FindParts`, for the voxels of the mask (``components/...``), for seeds
    (``seeds/...``) and cores (``cores/...``); parts of seeds and cores have a further column,
    ``within``: the part of the mask or seed around them.
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
            found = maps.identity
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
              for kind in kinds_of(self.seeds) for name in TABLES),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "tables"}

    def read_context(self) -> Triple:
        sigma = sigma_of(self.smooth_nm, self.place[0].voxel_size)
        return tuple(r + d + 1 for r, d in zip(reach(sigma), self._depth, strict=True))

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
                    found = tables_of_block(
                        grown, block.write_box, self.place[1], has_cores=self.seeds.has_cores
                    )
                with report.measure("write"):
                    report.write("landscape", output, block.write_box, grown[1:-1, 1:-1, 1:-1])
                    for name, columns in found.items():
                        report.write_table(name, tables[name], block, columns)
                report.counts["voxels"] = int(found["components_parts"]["size"].sum())
                report.counts["seed_voxels"] = int(found["seeds_parts"]["size"].sum())

            yield process

    def _landscape(self, maps: Maps, box: Box) -> np.ndarray:
        """Return the landscape of a box; 0 beyond the region and outside of the specimen."""
        found, region = np.zeros(box.shape, np.uint8), Box((0, 0, 0), self.place[1])
        inside = box.intersect(region)
        seen = box.grow(self._depth).intersect(region)
        kept = None if self.specimen is None else read_mask(self._specimen, self.place[0], seen)
        if kept is not None and not kept.any():
            return found
        values = maps.landscape(seen)
        if kept is not None:
            values[~kept] = 0
        if self.seeds.neck_nm is not None:
            deep = is_deep(values > 0, self.seeds.neck_nm / 2, self.place[0].voxel_size)
            values = with_cores(values, deep)
        found[inside.relative_to(box).slices] = values[inside.relative_to(seen).slices]
        return found

    @property
    def _depth(self) -> Triple:
        """Voxels (z, y, x) that tell whether one is deep enough in the mask for a core."""
        if self.seeds.neck_nm is None:
            return (0, 0, 0)
        return depth_reach(self.seeds.neck_nm / 2, self.place[0].voxel_size)

    def _opened(self):
        return open_maps(self, self.place[0])

    @cached_property
    def _specimen(self) -> Volume:
        return open_mask(self.specimen)


def kinds_of(seeds: SeedOptions) -> tuple[str, ...]:
    """Return the kinds of parts that there are tables of."""
    return KINDS if seeds.has_cores else KINDS[:2]


def tables_of_block(
    grown: np.ndarray, box: Box, shape: Triple, *, has_cores: bool
) -> dict[str, Columns]:
    """Return the tables of one block.

    Parameters
    ----------
    grown : (z + 2, y + 2, x + 2) uint8 array
        Landscape of the block `box` and one voxel around it.
    shape : (3,) int
        Voxels of the region.
    has_cores : bool
        Whether seeds have cores.
    """
    found: dict[str, Columns] = {}
    outer = None
    for kind, values in zip(KINDS, nested(grown, has_cores), strict=False):
        parts = find_parts(values[1:-1, 1:-1, 1:-1], FACES)
        for name, columns in tables_of_parts(values, parts, box, shape, FACES).items():
            found[f"{kind}_{name}"] = columns
        if outer is not None:
            within = outer.numbers.ravel()[parts.first]
            found[f"{kind}_parts"]["within"] = within.astype(np.int64)
        outer = parts
    return found

"""Leave out of scores what lies at the surface of objects."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Box, Triple, nearest_multiple, triple
from em_blocks.kernels.images.exclusion_zone import zone_in_nm, zone_in_voxels
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import check_ids, identity_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store

ZONES = {
    "mitochondria": (4, 4), "golgi": (2, 2), "endoplasmic_reticulum": (2, 2), "nuclear_pores": (1, 1),
    "coated_pits": (2, 2),
}
"""Voxels (of about 5 nm) outwards and inwards: B. Gallusser et al., doi:10.1083/jcb.202208005."""

Organelle = Literal[
    "mitochondria", "golgi", "endoplasmic_reticulum", "nuclear_pores", "coated_pits"
]
Distance = Annotated[float, Field(ge=0, le=10_000)]

_USUAL_BLOCK = 256
"""Voxels per axis."""


class MetricMask(BlockwiseTask):
    """Mark voxels that count in scores: 1, but 0 near the surface of objects.

    Annotators do not agree to the voxel where an object ends. Without these voxels a score tells how
    well objects are found rather than how their outlines were drawn; report both. The end of the
    volume is no surface.
    """

    fits_block: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["metric_mask"]
    labels: VolumeRef = Field(description="Volume of ids, or of 0 and 1.")
    ids: tuple[int, ...] | None = Field(
        None, min_length=1, description="Ids of the objects. Default: all but 0."
    )
    organelle: Organelle | None = Field(
        None, description="Takes the usual zone, voxels outwards and inwards: mitochondria 4 and 4; "
        "golgi, endoplasmic_reticulum, coated_pits 2 and 2; nuclear_pores 1 and 1."
    )
    outwards: Distance | None = Field(
        None, description="How far around objects voxels do not count; in place of 'organelle'."
    )
    inwards: Distance | None = Field(
        None, description="How far below the surface voxels of objects do not count."
    )
    unit: Literal["voxels", "nm"] = Field(
        "voxels", description="Of 'outwards' and 'inwards'. voxels: steps through faces. nm: from "
        "centre to centre of voxels, so that thick sections are not left out."
    )
    contacts: bool = Field(
        False, description="Also leave out where objects touch each other, 'inwards' into both."
    )
    output: StorePath = Field(description="Array of uint8 to make: 1 where a voxel counts.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    @model_validator(mode="after")
    def _one_zone(self) -> Self:
        stated = [self.outwards is not None, self.inwards is not None]
        if any(stated) == (self.organelle is not None) or any(stated) != all(stated):
            raise ValueError(
                "the zone is given either by 'organelle', or by both 'outwards' and 'inwards'"
            )
        if self.organelle is not None and self.unit == "nm":
            raise ValueError(
                "the zones of organelles are in voxels; leave 'unit' out, or give 'outwards' and "
                "'inwards' in nm"
            )
        if self.unit == "voxels" and any(way != int(way) for way in self._zone):
            raise ValueError(
                f"'outwards' and 'inwards' are {self._zone} voxels, but a zone is whole voxels wide; "
                "round them, or set 'unit' to \"nm\""
            )
        return self

    def grid(self) -> BlockGrid:
        return BlockGrid(self._labels.frame, self._labels.shape, self._block_shape)

    def inputs(self) -> dict:
        return {"labels": identity_of(self._labels)}

    def output_specs(self) -> list[VolumeOutput]:
        return [VolumeOutput(
            "counts", self.output, "uint8", self.chunk_shape, format=self.format, compression=0.1,
            shard_shape=block_shards(self.format, self._block_shape), attributes={"labels": True},
        )]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def read_context(self) -> Triple:
        widest = max(self._zone)
        if self.unit == "voxels":
            return triple([int(widest)] * 3)
        return triple(math.ceil(widest / size) for size in self._labels.frame.voxel_size)

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self._block_shape).grow(self.read_context()).shape

    def check(self) -> None:
        check_ids(self._labels)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels, output, around = self._labels, Volume.open(self.output, mode="r+"), self.read_context()

        def process(block: Block, report: BlockReport) -> None:
            seen = block.write_box.grow(around).intersect(labels.box)
            with report.measure("read"):
                values = labels.read(seen)
            with report.measure("compute"):
                counts = ~self._zone_of(values)[block.write_box.relative_to(seen).slices]
            with report.measure("write"):
                report.write("counts", output, block.write_box, counts.astype(np.uint8))
            report.counts["counted_voxels"] = int(counts.sum())

        yield process

    def _zone_of(self, values: np.ndarray) -> np.ndarray:
        """Return the voxels (z, y, x) that do not count."""
        ids = values if self.ids is None else np.where(np.isin(values, self.ids), values, 0)
        outwards, inwards = self._zone
        if self.unit == "voxels":
            return zone_in_voxels(
                ids, outwards=int(outwards), inwards=int(inwards), contacts=self.contacts
            )
        return zone_in_nm(
            ids, outwards=outwards, inwards=inwards, voxel_size=self._labels.frame.voxel_size,
            contacts=self.contacts,
        )

    @property
    def _zone(self) -> tuple[float, float]:
        """How far the zone reaches outwards and inwards, in the unit of the config."""
        if self.organelle is not None:
            return ZONES[self.organelle]
        assert self.outwards is not None and self.inwards is not None  # as the model checks
        return self.outwards, self.inwards

    @property
    def _block_shape(self) -> Triple:
        return self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)

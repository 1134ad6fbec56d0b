"""Equalise the contrast of an image."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import Triple, nearest_multiple
from em_blocks.kernels.images.grey_values import GREY_VALUES
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.preparation.apply_contrast import ApplyContrast
from em_blocks.tasks.preparation.contrast_options import ClipLimit, ValueRange, range_of
from em_blocks.tasks.preparation.measure_contrast import MeasureContrast
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store

_USUAL_BLOCK = 256
"""Voxels per axis."""


class Equalize(RunConfig):
    """Equalise contrast by local histograms (CLAHE), in two runs: RUN.contrast, RUN.equalized.

    The volume is cut into regions of `kernel_shape` voxels from its first voxel on. Each maps its grey
    values to their ranks; a voxel takes the maps of the regions around it, interpolated between their
    centres. Nothing of this depends on the blocks, so there are no seams. Networks learn from the
    result: its settings are stored with it, as the attribute ``equalized``.
    """

    kind: Literal["equalize"]
    raw: VolumeRef = Field(description="Image of 8 or 16 bits, or floats; is not changed.")
    output: StorePath = Field(description="Array of uint8 to make, e.g. data/brain.zarr/equalized.")
    kernel_shape: Shape3 = Field(
        (128, 128, 128),
        description="Voxels (z, y, x) of a region: several times as large as what shall keep its "
        "contrast to its surroundings. 1 along z equalises each section for itself.",
    )
    clip_limit: ClipLimit = Field(
        0.02, description="Largest share of a region's voxels that one grey value counts with. Lower: "
        "less contrast, less noise. 1: no limit."
    )
    value_range: ValueRange | None = Field(
        None, description="Values that become the darkest and the brightest of 256 grey values; those "
        "beyond are cut. Default: 0 to 255 for uint8; needed for all others."
    )
    mask: VolumeRef | None = Field(
        None, description="Volume of any voxel size, 0 where there is no tissue: voxels there do not "
        "count, and keep their grey value."
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    @model_validator(mode="after")
    def _regions_have_ranks(self) -> Self:
        if math.prod(self.kernel_shape) < GREY_VALUES:
            raise ValueError(
                f"kernel_shape {self.kernel_shape} has fewer than {GREY_VALUES} voxels, so that hardly "
                "two of them would have the same grey value and ranks would be noise; use a larger one"
            )
        return self

    def steps(self) -> list[BlockwiseTask]:
        """The maps of all regions, and the image that they give."""
        block_shape = self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)
        whole_regions = nearest_multiple(block_shape, self.kernel_shape)
        return [
            MeasureContrast.from_dict(self._step(
                "measure_contrast", "contrast", whole_regions, output=self._maps
            )),
            ApplyContrast.from_dict(self._step(
                "apply_contrast", "equalized", block_shape, maps=self._maps, output=self.output,
                part_shape=whole_regions, chunk_shape=self.chunk_shape, format=self.format,
            )),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def _step(self, kind: str, name: str, block_shape: Triple, **values) -> dict:
        """Return the config of a step, with what both steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        return {
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "raw": self.raw, "tissue": self.mask, "kernel_shape": self.kernel_shape,
            "clip_limit": self.clip_limit, "block_shape": block_shape,
            "value_range": range_of(Volume.open(self.raw), self.value_range), **values,
        }

    @property
    def _maps(self) -> str:
        return str(self.home / "tables" / self.run / "maps")

"""Find out where a volume holds tissue."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.geometry import nearest_multiple
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.components.zero_parts import ApplyZeroParts, FindZeroParts, KeepLarge
from em_blocks.tasks.preparation.contrast_options import ValueRange
from em_blocks.tasks.preparation.find_tissue import FindTissue, Radius3
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store

_USUAL_BLOCK = 256
"""Voxels per axis."""

_DAY_S = 86400


class TissueMask(RunConfig):
    """Mark tissue by its grey values: 1, else 0; to be the `mask` of other tasks.

    Grey values in a range are opened and closed (RUN.tissue). Then holes of fewer than `min_size`
    voxels are filled, and of what is tissue then, pieces of fewer voxels are removed. Holes and pieces
    are those of the whole volume (RUN.hole_parts, RUN.hole_join, RUN.filled; RUN.parts, RUN.join,
    RUN.mask): nothing depends on the blocks. Voxels of a piece are joined by faces, edges or
    corners, those of a hole by faces.
    """

    kind: Literal["tissue_mask"]
    raw: VolumeRef = Field(description="Image; is not changed.")
    grey_range: ValueRange = Field(
        description="Tissue is brighter than the first and darker than the second value, e.g. [2, 180] "
        "of 8 bits, where resin is bright and what alignment left empty is 0."
    )
    opening: Radius3 = Field(
        (3, 3, 3), description="Half axes, voxels (z, y, x), of an ellipsoid: tissue that cannot "
        "hold it is removed. 0 along z treats each section for itself."
    )
    closing: Radius3 = Field(
        (2, 2, 2), description="Half axes, voxels (z, y, x), of an ellipsoid: gaps that cannot hold "
        "it are filled."
    )
    min_size: PositiveInt = Field(
        100_000, description="Voxels that a piece of tissue, and a hole in it, has at least."
    )
    output: StorePath = Field(description="Array of uint8 to make, e.g. data/brain.zarr/mask.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    @model_validator(mode="after")
    def _no_mask(self) -> Self:
        if self.mask is not None:
            raise ValueError(
                "a 'mask' would cut holes and pieces that reach into masked blocks; leave it out"
            )
        return self

    def steps(self) -> list[BlockwiseTask]:
        """Tissue by grey values, without holes, without small pieces."""
        tissue, outside = self._volume("tissue"), self._volume("outside")
        chunks = {"chunk_shape": self.chunk_shape}
        return [
            FindTissue.from_dict(self._step(
                "find_tissue", "tissue", raw=self.raw, grey_range=self.grey_range, output=tissue,
                opening=self.opening, closing=self.closing, **chunks,
            )),
            # What is left of the background is where no tissue is, holes included.
            *self._large_zeros(
                tissue, ("hole_parts", "hole_join", "filled"), connectivity=6, output=outside, **chunks
            ),
            *self._large_zeros(
                outside, ("parts", "join", "mask"), connectivity=26, output=self.output,
                format=self.format, **chunks,
            ),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def _large_zeros(
        self, volume: str, names: tuple[str, str, str], *, connectivity: int, **made
    ) -> list[BlockwiseTask]:
        """Return the steps that find parts of what is 0 in a volume, and keep the large ones."""
        parts, join, kept = names
        tables = str(self._folder / parts)
        changes = store.join(tables, "changes")
        zeros = {"labels": volume, "like": self.raw, "connectivity": connectivity}
        return [
            FindZeroParts.from_dict(self._step("find_zero_parts", parts, output=tables, **zeros)),
            KeepLarge.from_dict(self._step(
                "keep_large", join, labels=self.raw, tables=tables, output=changes,
                min_size=self.min_size, largest_id=1, num_workers=1,
                block_timeout_s=max(self.block_timeout_s or 0.0, _DAY_S),
            )),
            ApplyZeroParts.from_dict(self._step(
                "apply_zero_parts", kept, changes=changes, dtype="uint8", **zeros, **made
            )),
        ]

    def _step(self, kind: str, name: str, **values) -> dict:
        """Return the config of a step, with what all steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        block_shape = self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)
        return {
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "block_shape": block_shape, **values,
        }

    @property
    def _folder(self):
        return self.home / "tables" / self.run

    def _volume(self, name: str) -> str:
        return str(self._folder / "steps.zarr" / name)

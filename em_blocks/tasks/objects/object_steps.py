"""What all ways to objects have in common: where they lie, their holes, their table."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self, get_args

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.geometry import nearest_multiple
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.objects.listing import listing_paths
from em_blocks.tasks.objects.measures import ListObjects, MeasureObjects
from em_blocks.tasks.objects.steps import FillGaps, FindGaps, JoinGaps
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store

_USUAL_BLOCK = 256
"""Voxels per axis."""

_DAY_S = 86400


class ObjectSteps(RunConfig):
    """The last steps to the objects of a volume, and what their configs share.

    The container `output` gets the volume ``objects``; all tables lie in ``tables``.
    """

    roi: RoiConfig | None = Field(None, description="Region, nm (z, y, x). Default: all.")
    output: StorePath = Field(description="Container to make, e.g. data/mitochondria.zarr.")
    min_size: PositiveInt = Field(100, description="Voxels that an object has at least.")
    fill_holes: bool = Field(True, description="Whether holes in objects become part of them.")
    max_hole: PositiveInt | None = Field(
        None, description="Voxels that a hole has at most. Default: any number."
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    @model_validator(mode="after")
    def _holes_are_filled_or_not(self) -> Self:
        if self.max_hole is not None and not self.fill_holes:
            raise ValueError("`max_hole` means nothing while `fill_holes` is false; leave one out")
        return self

    @property
    @abstractmethod
    def like(self) -> VolumeRef:
        """Volume of the same voxels, which exists before the first step."""

    def outputs_root(self) -> str:
        return self.output

    def results(self) -> dict[str, str]:
        """Return the volume of objects, and the files that list them."""
        files = listing_paths(self.home, self.run)
        return {"objects": self._volume("objects"), "list": f"{files[0]}, {files[1].name}"}

    @property
    def _found(self) -> str:
        """Name of the volume of objects before holes are filled."""
        return "components" if self.fill_holes else "objects"

    def _finish(self) -> list[BlockwiseTask]:
        """Return the steps after the volume `_found`: holes, and the table."""
        return [*(self._holes() if self.fill_holes else []), *self._table()]

    def _holes(self) -> list[BlockwiseTask]:
        labels, gaps, holes = self._volume("components"), self._folder("gaps"), self._folder("holes")
        return [
            self._later(FindGaps, "gaps", labels=labels, output=gaps),
            self._whole(
                JoinGaps, "holes", labels=labels, tables=gaps, output=holes, max_hole=self.max_hole,
                block_shape=self._block_shape,
            ),
            self._applied(FillGaps, "objects", labels=labels, changes=holes),
        ]

    def _table(self) -> list[BlockwiseTask]:
        objects, measures = self._volume("objects"), self._folder("measures")
        measured = self._later(MeasureObjects, "measures", labels=objects, output=measures)
        return [measured, self._list()]

    def _list(self) -> BlockwiseTask:
        return self._whole(
            ListObjects, "table", labels=self._volume("objects"), measures=self._folder("measures"),
            classes=self._folder("classes"), part_shape=self._block_shape,
            output=self._folder("table"),
        )

    def _applied(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        return self._later(
            task, name, output=self._volume(name), dtype="uint64", chunk_shape=self.chunk_shape,
            format=self.format, **values,
        )

    def _whole(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        # One block for the whole volume: reading its tables takes 2 ms for each of theirs.
        timeout_s = max(self.block_timeout_s or 0.0, _DAY_S)
        return self._later(task, name, num_workers=1, block_timeout_s=timeout_s, **values)

    def _later(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        return self._step(task, name, like=self.like, roi=self._roi, **values)

    def _step(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        """Return a step, with what all steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        (kind,) = get_args(task.model_fields["kind"].annotation)
        return task.from_dict({
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "block_shape": self._block_shape, **values,
        })

    @property
    def _block_shape(self) -> tuple[int, int, int]:
        return self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)

    @property
    def _roi(self) -> dict | None:
        return None if self.roi is None else self.roi.model_dump()

    def _volume(self, name: str) -> str:
        return store.join(self.output, name)

    def _folder(self, name: str) -> str:
        return store.join(self.output, "tables", name)

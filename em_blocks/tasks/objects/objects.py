"""From probabilities to objects: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef, path_of
from em_blocks.geometry import nearest_multiple
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.objects.listing import listing_paths, write_listing
from em_blocks.tasks.objects.measures import ListObjects, MeasureObjects
from em_blocks.tasks.objects.steps import (
    ApplyObjects,
    FillGaps,
    FindGaps,
    FindObjects,
    JoinGaps,
    JoinObjects,
)
from em_blocks.tasks.objects.threshold import MOST_CLASSES, Channel, Threshold, Thresholds
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

_USUAL_BLOCK = 256
"""Voxels per axis."""

_DAY_S = 86400
_MADE = ("mask", "components", "objects", "tables")


class Objects(RunConfig):
    """Probabilities -> classes -> connected objects -> filled holes -> a table of objects.

    Every step is a run of its own: ``RUN.mask``, ``RUN.parts``, ``RUN.join``, ``RUN.components``,
    ``RUN.gaps``, ``RUN.holes``, ``RUN.objects``, ``RUN.measures`` and ``RUN.table``. The container
    `output` gets the volumes ``mask`` (class ids, as of the task threshold), ``components`` and
    ``objects``.

    The voxels of a class that are connected by faces, edges or corners are an object, also across
    blocks; ids are 1, 2, ... in the order of first voxels (z slowest). Then those of fewer than
    `min_size` voxels are erased, and holes are filled: background that is connected by faces, touches
    no border of the region, and one object only. Nothing of this depends on the blocks.

    ``RUN.objects.parquet`` and ``RUN.objects.csv`` in the folder of the run list all objects.
    """

    kind: Literal["objects"]
    prediction: VolumeRef = Field(
        description="Probabilities: uint8, uint16 with the attribute scale, or float in 0..1."
    )
    channels: tuple[Channel, ...] | None = Field(
        None, min_length=1, max_length=MOST_CLASSES,
        description="Channels by number or class. Default: all classes.",
    )
    threshold: Thresholds = Field(
        0.5, description='From this probability on a voxel is of a class; {"class": threshold, ...} for '
        "one per class."
    )
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size; outside of it there are no objects."
    )
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
    def _output_is_a_container_of_its_own(self) -> Self:
        read = {"prediction": self.prediction, "mask": self.mask}
        check_apart(
            {name: path_of(value) for name, value in read.items() if value is not None},
            {name: store.join(self.output, name) for name in _MADE},
        )
        if self.max_hole is not None and not self.fill_holes:
            raise ValueError("`max_hole` means nothing while `fill_holes` is false; leave one out")
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.mask"

    def steps(self) -> list[BlockwiseTask]:
        """Classes, components, holes, and the table."""
        return [*self._components(), *(self._holes() if self.fill_holes else []), *self._table()]

    def outputs_root(self) -> str:
        return self.output

    def results(self) -> dict[str, str]:
        """Return the volume of objects, and the files that list them."""
        files = listing_paths(self.home, self.run)
        return {"objects": self._volume("objects"), "list": f"{files[0]}, {files[1].name}"}

    def publish(self) -> None:
        """Write the list of all objects."""
        paths = listing_paths(self.home, self.run)
        write_listing(paths, self._folder("table"), self._mask().names)

    # -- the steps ----------------------------------------------------------------------------

    def _components(self) -> list[BlockwiseTask]:
        mask, parts, changes = self._volume("mask"), self._folder("parts"), self._folder("changes")
        return [
            self._mask(),
            self._later(FindObjects, "parts", labels=mask, output=parts),
            self._whole(
                JoinObjects, "join", labels=mask, tables=parts, output=changes,
                classes=self._folder("classes"), min_size=self.min_size,
                block_shape=self._block_shape,
            ),
            self._applied(
                ApplyObjects, "components" if self.fill_holes else "objects", labels=mask,
                changes=changes,
            ),
        ]

    def _mask(self) -> Threshold:
        return self._step(
            Threshold, "mask", prediction=self.prediction, channels=self.channels,
            threshold=self.threshold, mask=self.mask, roi=self._roi, output=self._volume("mask"),
            chunk_shape=self.chunk_shape, format=self.format,
        )

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
        return [
            self._later(MeasureObjects, "measures", labels=objects, output=measures),
            self._whole(
                ListObjects, "table", labels=objects, measures=measures,
                classes=self._folder("classes"), part_shape=self._block_shape,
                output=self._folder("table"),
            ),
        ]

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
        return self._step(task, name, like=self.prediction, roi=self._roi, **values)

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

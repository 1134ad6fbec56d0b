"""From probabilities to objects: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from em_blocks.config import VolumeRef, path_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.objects.listing import listing_paths, write_listing
from em_blocks.tasks.objects.object_steps import ObjectSteps
from em_blocks.tasks.objects.steps import ApplyObjects, FindObjects, JoinObjects
from em_blocks.tasks.objects.threshold import Threshold
from em_blocks.tasks.objects.threshold_options import ThresholdOptions
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

_MADE = ("mask", "components", "objects", "tables")


class Objects(ThresholdOptions, ObjectSteps):
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
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size; outside of it there are no objects."
    )

    @model_validator(mode="after")
    def _output_is_a_container_of_its_own(self) -> Self:
        read = {"prediction": self.prediction, "mask": self.mask}
        check_apart(
            {name: path_of(value) for name, value in read.items() if value is not None},
            {name: store.join(self.output, name) for name in _MADE},
        )
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.mask"

    def steps(self) -> list[BlockwiseTask]:
        """Classes, components, holes, and the table."""
        return [*self._components(), *self._finish()]

    @property
    def like(self) -> VolumeRef:
        return self.prediction

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
            self._applied(ApplyObjects, self._found, labels=mask, changes=changes),
        ]

    def _mask(self) -> Threshold:
        return self._step(
            Threshold, "mask", prediction=self.prediction, channels=self.channels,
            threshold=self.threshold, mask=self.mask, roi=self._roi, output=self._volume("mask"),
            chunk_shape=self.chunk_shape, format=self.format,
        )

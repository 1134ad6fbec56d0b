"""From predicted maps to instances: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import VolumeRef, path_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.instances.apply_numbers import ApplyNumbers
from em_blocks.tasks.instances.flood import FloodInstances
from em_blocks.tasks.instances.join_seeds import JoinSeeds
from em_blocks.tasks.instances.label_seeds import LabelSeeds
from em_blocks.tasks.instances.landscape import MarkInstances
from em_blocks.tasks.instances.number import NumberInstances
from em_blocks.tasks.instances.options import MapOptions
from em_blocks.tasks.objects.listing import listing_paths, write_listing
from em_blocks.tasks.objects.object_steps import ObjectSteps
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

_MADE = ("landscape", "labels", "flooded", "components", "objects", "tables")


class SegmentInstances(MapOptions, ObjectSteps):
    """Foreground, contour and distance -> seeds -> flood -> one label per object -> a table of objects.

    Every step is a run of its own: ``RUN.marks``, ``RUN.seeds``, ``RUN.labels``, ``RUN.flood``,
    ``RUN.numbers``, ``RUN.components``, ``RUN.gaps``, ``RUN.holes``, ``RUN.objects``, ``RUN.measures``
    and ``RUN.table``. The container `output` gets the volume ``objects`` (uint64), and those of steps.

    Voxels whose foreground reaches `threshold` are the mask. Those that also meet the thresholds of
    `seeds` are seeds; voxels that are connected by faces are one seed, across blocks too. A component of
    the mask with one seed is an object, one without is erased, and one with several is flooded from
    them: an object for each. Those of fewer than `min_size` voxels are erased, and holes are filled.
    Ids are 1, 2, ... in the order of first voxels (z slowest). Nothing of this depends on the blocks.

    ``RUN.objects.parquet`` and ``RUN.objects.csv`` in the folder of the run list all objects.
    """

    kind: Literal["segment_instances"]
    min_size: PositiveInt = Field(1000, description="Voxels that an object has at least.")
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size; outside of it there are no objects."
    )

    @model_validator(mode="after")
    def _output_is_a_container_of_its_own(self) -> Self:
        read = {**self.maps, "mask": self.mask}
        check_apart(
            {name: path_of(value) for name, value in read.items() if value is not None},
            {name: store.join(self.output, name) for name in _MADE},
        )
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.marks"

    @property
    def like(self) -> VolumeRef:
        return self.foreground

    def steps(self) -> list[BlockwiseTask]:
        """Mask and seeds, the flood, labels, holes, and the table."""
        return [*self._seeds(), *self._flood(), *self._finish()]

    def publish(self) -> None:
        """Write the list of all objects."""
        write_listing(listing_paths(self.home, self.run), self._folder("table"), [])

    # -- the steps ----------------------------------------------------------------------------

    def _seeds(self) -> list[BlockwiseTask]:
        landscape, changes = self._volume("landscape"), self._folder("seeds")
        options = {name: getattr(self, name) for name in MapOptions.model_fields}
        return [
            self._step(
                MarkInstances, "marks", **options, specimen=self.mask, roi=self._roi,
                output=landscape, tables=self._folder("marks"), **self._storage,
            ),
            self._whole(
                JoinSeeds, "seeds", labels=landscape, tables=self._folder("marks"), output=changes,
                part_shape=self._block_shape, min_seed_size=self.seeds.min_size, min_size=self.min_size,
            ),
            self._later(
                LabelSeeds, "labels", labels=landscape, changes=changes, output=self._volume("labels"),
                **self._storage,
            ),
        ]

    def _flood(self) -> list[BlockwiseTask]:
        flooded, sizes, numbers = self._volume("flooded"), self._folder("sizes"), self._folder("numbers")
        return [
            self._later(
                FloodInstances, "flood", labels=self._volume("labels"),
                landscape=self._volume("landscape"), output=flooded, tables=sizes, **self._storage,
            ),
            self._whole(
                NumberInstances, "numbers", labels=flooded, tables=sizes, output=numbers,
                classes=self._folder("classes"), part_shape=self._block_shape, min_size=self.min_size,
            ),
            self._later(
                ApplyNumbers, self._found, labels=flooded, numbers=numbers,
                output=self._volume(self._found), **self._storage,
            ),
        ]

    @property
    def _storage(self) -> dict:
        return {"chunk_shape": self.chunk_shape, "format": self.format}

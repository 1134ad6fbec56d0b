"""From predicted maps to instances: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import VolumeRef, path_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.components.find_parts import FindParts
from em_blocks.tasks.instances.apply_numbers import ApplyNumbers
from em_blocks.tasks.instances.await_labels import AwaitLabels
from em_blocks.tasks.instances.boundaries import CountBoundaries
from em_blocks.tasks.instances.flood import FloodInstances
from em_blocks.tasks.instances.gaps import FindInstanceGaps, JoinInstanceGaps
from em_blocks.tasks.instances.join_seeds import JoinSeeds
from em_blocks.tasks.instances.join_segments import JoinSegments
from em_blocks.tasks.instances.label_seeds import LabelSeeds
from em_blocks.tasks.instances.landscape import MarkInstances, kinds_of
from em_blocks.tasks.instances.merge import MergeFragments, MergeOptions
from em_blocks.tasks.instances.number import NumberInstances
from em_blocks.tasks.instances.options import MapOptions
from em_blocks.tasks.objects.listing import listing_paths, write_listing
from em_blocks.tasks.objects.object_steps import ObjectSteps
from em_blocks.tasks.objects.steps import ApplyObjects
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

_MADE = ("landscape", "labels", "flooded", "components", "objects", "tables")


class SegmentInstances(MapOptions, ObjectSteps):
    """Foreground, contour and distance -> seeds -> flood -> one label per object -> a table of objects.

    Every step is a run of its own: ``RUN.marks``, ``RUN.seeds``, ``RUN.labels``, ``RUN.labelled``,
    ``RUN.flood``, ``RUN.numbers``, ``RUN.gaps``, ``RUN.holes``, ``RUN.objects`` and ``RUN.table``. The
    container `output` gets the volume ``objects`` (uint64), and those of steps.

    Voxels whose foreground reaches `threshold` are the mask. Those that also meet the thresholds of
    `seeds` are seeds; voxels that are connected by faces are one seed, across blocks too. A component of
    the mask with one seed is an object, one without is erased, and one with several is flooded from
    them: an object for each. Those of fewer than `min_size` voxels are erased, and holes are filled.
    Ids are 1, 2, ... in the order of first voxels (z slowest). Nothing of this depends on the blocks.

    With `merge`, the steps ``RUN.boundaries`` and ``RUN.merge`` after the flood tell which objects that
    touch are one.

    With a `segmentation` in place of maps, the steps are ``RUN.parts``, ``RUN.join``,
    ``RUN.components``, and from ``RUN.gaps`` on as above, with ``RUN.measures``.

    ``RUN.objects.parquet`` and ``RUN.objects.csv`` in the folder of the run list all objects.
    """

    kind: Literal["segment_instances"]
    segmentation: VolumeRef | None = Field(
        None, description="Volume of ids in place of maps, e.g. of `em-blocks segment`, which makes it "
        "of affinities: every connected part of an id is an object."
    )
    merge: MergeOptions | None = Field(
        None, description="Which of the objects that touch each other are merged after the flood, as "
        "`search-instances` fits it. Default: none."
    )
    min_size: PositiveInt = Field(1000, description="Voxels that an object has at least.")
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size; outside of it there are no objects."
    )

    @model_validator(mode="after")
    def _maps_or_a_segmentation(self) -> Self:
        if (self.foreground is None) == (self.segmentation is None):
            raise ValueError(
                "objects are made of maps or of a segmentation: name one of 'foreground' and "
                "'segmentation'"
            )
        unused = {*MapOptions.model_fields, "mask", "roi", "merge"} & self.model_fields_set
        given = sorted(name for name in unused if getattr(self, name) is not None)
        if self.segmentation is not None and given:
            raise ValueError(
                f"{', '.join(given)} would decide nothing: with 'segmentation', objects are what is "
                "connected in it. Leave these keys out"
            )
        return self

    @model_validator(mode="after")
    def _every_feature_has_its_map(self) -> Self:
        for feature in self.merge.weights if self.merge and not self.segmentation else ():
            name = feature.partition("_")[0]
            if name in MapOptions.model_fields and getattr(self, name) is None:
                raise ValueError(
                    f"merge.weights has {feature}, but there is no map {name!r} that it could be read "
                    f"from; name the volume by the key {name!r}, or fit the weights without it"
                )
        return self

    @model_validator(mode="after")
    def _output_is_a_container_of_its_own(self) -> Self:
        read = {**self.maps, "segmentation": self.segmentation, "mask": self.mask}
        check_apart(
            {name: path_of(value) for name, value in read.items() if value is not None},
            {name: store.join(self.output, name) for name in _MADE},
        )
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.marks" if self.segmentation is None else f"{self.run}.parts"

    @property
    def like(self) -> VolumeRef:
        found = self.foreground or self.segmentation
        assert found is not None  # one of them is named
        return found

    def steps(self) -> list[BlockwiseTask]:
        """Mask and seeds, the flood, holes, labels, and the table."""
        if self.segmentation is not None:
            return [*self._parts(), *self._finish()]
        holes = self._gaps() if self.fill_holes else []
        return [*self._seeds(), *self._flood(), *holes, self._objects(), self._list()]

    def publish(self) -> None:
        """Write the list of all objects."""
        write_listing(listing_paths(self.home, self.run), self._folder("table"), [])

    # -- the steps ----------------------------------------------------------------------------

    def _seeds(self) -> list[BlockwiseTask]:
        landscape, changes = self._volume("landscape"), self._folder("seeds")
        return [
            self._step(
                MarkInstances, "marks", **self._map_options, specimen=self.mask, roi=self._roi,
                output=landscape, tables=self._folder("marks"), **self._storage,
            ),
            self._whole(
                JoinSeeds, "seeds", labels=landscape, tables=self._folder("marks"), output=changes,
                part_shape=self._block_shape, kinds=kinds_of(self.seeds),
                min_seed_size=self.seeds.min_size, min_size=self.min_size,
            ),
            self._later(
                LabelSeeds, "labels", labels=landscape, changes=changes, kinds=kinds_of(self.seeds),
                output=self._volume("labels"),
                **self._storage,
            ),
        ]

    def _flood(self) -> list[BlockwiseTask]:
        flooded, sizes = self._volume("flooded"), self._folder("sizes")
        return [
            self._whole(
                AwaitLabels, "labelled", labels=self._volume("labels"), output=self._folder("labelled"),
                part_shape=self._block_shape,
            ),
            self._later(
                FloodInstances, "flood", labels=self._volume("labels"),
                landscape=self._volume("landscape"), output=flooded, tables=sizes, **self._storage,
            ),
            *self._merge(),
            self._whole(
                NumberInstances, "numbers", labels=flooded, tables=sizes, merged=self._merged,
                output=self._folder("numbers"), part_shape=self._block_shape, min_size=self.min_size,
                **{name: self._folder(name) for name in ("all_numbers", "erased", "classes")},
            ),
        ]

    def _merge(self) -> list[BlockwiseTask]:
        if self.merge is None:
            return []
        flooded, counted = self._volume("flooded"), self._folder("boundaries")
        return [
            self._later(
                CountBoundaries, "boundaries", labels=flooded, output=counted, **self._map_options
            ),
            self._whole(
                MergeFragments, "merge", labels=flooded, boundaries=counted,
                tables=self._folder("sizes"), output=self._merged, part_shape=self._block_shape,
                merge=self.merge,
            ),
        ]

    def _parts(self) -> list[BlockwiseTask]:
        """Return the steps from a segmentation to components."""
        parts, changes, labels = self._folder("parts"), self._folder("changes"), self.segmentation
        return [
            self._step(FindParts, "parts", labels=labels, output=parts),
            self._whole(
                JoinSegments, "join", labels=labels, tables=parts, output=changes,
                classes=self._folder("classes"), min_size=self.min_size,
                block_shape=self._block_shape,
            ),
            self._applied(ApplyObjects, self._found, labels=labels, changes=changes),
        ]

    def _gaps(self) -> list[BlockwiseTask]:
        flooded, gaps, holes = self._volume("flooded"), self._folder("gaps"), self._folder("holes")
        return [
            self._later(
                FindInstanceGaps, "gaps", labels=flooded, output=gaps, erased=self._folder("erased"),
                merged=self._merged,
            ),
            self._whole(
                JoinInstanceGaps, "holes", labels=flooded, tables=gaps, output=holes,
                max_hole=self.max_hole, block_shape=self._block_shape,
                numbers=self._folder("all_numbers"),
            ),
        ]

    def _objects(self) -> BlockwiseTask:
        return self._later(
            ApplyNumbers, "objects", labels=self._volume("flooded"), numbers=self._folder("numbers"),
            holes=self._folder("holes") if self.fill_holes else None, output=self._volume("objects"),
            measures=self._folder("measures"), **self._storage,
        )

    @property
    def _merged(self) -> str | None:
        return None if self.merge is None else self._folder("merged")

    @property
    def _map_options(self) -> dict:
        return {name: getattr(self, name) for name in MapOptions.model_fields}

    @property
    def _storage(self) -> dict:
        return {"chunk_shape": self.chunk_shape, "format": self.format}

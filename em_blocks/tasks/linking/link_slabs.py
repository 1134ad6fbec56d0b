"""From slabs that were labelled each for itself to one volume: the steps, and how they fit together."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from em_blocks.config import Shape3, StorePath, path_of
from em_blocks.geometry import Triple, nearest_multiple
from em_blocks.kernels.linking.links import Criterion
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.linking.find_faces import FindFaces
from em_blocks.tasks.linking.link_labels import LinkLabels, Score
from em_blocks.tasks.linking.of_slabs import Cut, SlabRefs
from em_blocks.tasks.linking.relabel_slabs import RelabelSlabs
from em_blocks.tasks.linking.slabs import Slabs
from em_blocks.tasks.linking.trace_report import trace_paths, write_trace
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

_USUAL_BLOCK = 256
"""Voxels per axis."""

_DAY_S = 86400


class LinkSlabs(RunConfig):
    """Link the labels of slabs that were segmented each for itself: RUN.faces, RUN.links, RUN.linked.

    Two labels on both sides of a face are one object if they agree: I is the number of voxels where
    they lie beside each other, A and B are their voxels in the face. Links are joined over all faces,
    so an object may run through any number of slabs, split and merge. Ids of the result are
    1, 2, ... in the order of slabs (by position, z slowest) and their labels; neither they nor the links
    depend on the order in which the slabs are named, nor on the blocks.

    ``RUN.trace.json`` counts links, splits, merges, ends and starts of every face;
    ``RUN.links.csv`` and ``.parquet`` list every pair of labels that meet.
    """

    reads: ClassVar[tuple[str, ...]] = ("slabs",)

    kind: Literal["link_slabs"]
    slabs: SlabRefs
    cut: Cut = None
    criterion: Criterion = Field(
        "iou", description="iou: I / (A + B - I). dice: 2 I / (A + B). min: I / min(A, B), which links "
        "a thin end to the object that it is part of. sum: I / (A + B)."
    )
    threshold: Score = Field(
        0.25, description="Labels are one object from this value on. An iou of 0.25 is a dice of 0.4 "
        "and a sum of 0.2."
    )
    mutual_best: bool = Field(
        False, description="Link only labels that are the best partner of each other in their face: no "
        "object splits or merges there."
    )
    output: StorePath = Field(description="Array to make, e.g. data/brain.zarr/linked.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that one block writes. Default: about 256 per axis."
    )

    @model_validator(mode="after")
    def _output_is_no_slab(self) -> Self:
        check_apart(
            {f"slabs {n}": path_of(slab) for n, slab in enumerate(self.slabs)}, {"linked": self.output}
        )
        if len(self.slabs) == 1 and self.cut is None:
            raise ValueError(
                "one slab has no face to link; name at least two under `slabs`, or by `cut` the shape "
                "of the pieces that the volume consists of"
            )
        return self

    def steps(self) -> list[BlockwiseTask]:
        """The faces of every block, what is linked over the whole volume, and the result."""
        # In the order of positions, so that another order in the config is the same run.
        slabs = Slabs(self.slabs, self.cut).sources
        tables, found = self._folder("faces"), self._folder("links")
        return [
            self._step(FindFaces, "faces", slabs=slabs, output=tables),
            self._step(
                LinkLabels, "links", slabs=slabs, tables=tables, output=found,
                criterion=self.criterion, threshold=self.threshold, mutual_best=self.mutual_best,
                part_shape=self._block_shape, num_workers=1,
                # One block for the whole volume: reading its tables takes 2 ms for each of theirs.
                block_timeout_s=max(self.block_timeout_s or 0.0, _DAY_S),
            ),
            self._step(
                RelabelSlabs, "linked", slabs=slabs, objects=store.join(found, "objects"),
                output=self.output, chunk_shape=self.chunk_shape, format=self.format,
            ),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def results(self) -> dict[str, str]:
        """Return the volume, and the files that tell what was linked."""
        report, *listing = trace_paths(self.home, self.run)
        return {
            "linked": self.output, "trace": str(report),
            "links": f"{listing[0]}, {listing[1].name}",
        }

    def publish(self) -> None:
        """Write the trace report, and the list of all pairs."""
        write_trace(
            trace_paths(self.home, self.run), Slabs(self.slabs, self.cut), self._folder("links"),
            {"criterion": self.criterion, "threshold": self.threshold,
             "mutual_best": self.mutual_best},
        )

    def _step(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        """Return a step, with what all steps share."""
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        (kind,) = get_args(task.model_fields["kind"].annotation)
        return task.from_dict({
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.home),
            "cut": self.cut, "mask": self.mask, "block_shape": self._block_shape, **values,
        })

    @property
    def _block_shape(self) -> Triple:
        return self.block_shape or nearest_multiple((_USUAL_BLOCK,) * 3, self.chunk_shape)

    def _folder(self, name: str) -> str:
        return str(self.home / "tables" / self.run / name)

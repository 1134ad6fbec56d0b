"""Which synapses face one cleft: the steps, and how they fit together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from em_blocks.config import LocalPath, Shape3, StorePath, VolumeRef
from em_blocks.tasks.base import BlockwiseTask, RunConfig, RunName
from em_blocks.tasks.components.find_parts import MAX_ID
from em_blocks.tasks.components.join_parts import JoinParts
from em_blocks.tasks.synapses.cleft_parts import ApplyCleftParts, FindCleftParts, Threshold
from em_blocks.tasks.synapses.cleft_rows import ConnectClefts, MarkClefts
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.stores import store

_DAY_S = 86400


class ClusterClefts(RunConfig):
    """Find components of predicted clefts, and the synapses whose line from site to site crosses them.

    Voxels of at least `threshold` that are connected by faces, edges or corners are one cleft, also
    across blocks (``RUN.parts``, ``RUN.join``, and ``RUN.clefts``, which writes their ids). ``RUN.rows``
    gives every synapse the cleft with most voxels on its line, and the largest value there;
    ``RUN.connectors`` writes the collection ``clefts``.
    """

    kind: Literal["cluster_clefts"]
    run_dir: LocalPath = Field(
        description="Folder of the run that detected the synapses, for its database and for logs."
    )
    synapses: RunName = Field(description="The run that detected the synapses.")
    prediction: VolumeRef = Field(description="Volume of predicted clefts, one value per voxel.")
    threshold: Threshold = Field(
        0.5, description="Voxels of at least this are cleft; in units of the network's output."
    )
    output: StorePath = Field(description="Array to make, of the ids of clefts.")
    max_distance_nm: Annotated[float, Field(gt=0, le=10_000)] = Field(
        1000.0, description="A synapse whose sites are farther apart is given no cleft."
    )
    split_above: PositiveInt | None = Field(
        None, description="A cleft of more voxels has two connectors, by 2-means of its presynaptic "
        "sites. Default: never."
    )
    block_shape: Shape3 = Field((64, 512, 512), description="Voxels (z, y, x) that one block writes.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    @model_validator(mode="after")
    def _no_mask(self) -> Self:
        if self.mask is not None:
            raise ValueError(
                "a 'mask' would cut clefts that reach into masked blocks; leave it out, empty blocks "
                "cost little"
            )
        return self

    def steps(self) -> list[BlockwiseTask]:
        """Components of every block, which of them are one, their ids, the rows, the connectors."""
        found = {"labels": self.prediction, "threshold": self.threshold}
        changes, folder = self._folder("changes"), self._folder("parts")
        rows = {"prediction": self.prediction, "clefts": self.output, "synapses": self.synapses,
                "sums": self._folder("sums")}
        whole = {"num_workers": 1, "block_timeout_s": max(self.block_timeout_s or 0.0, _DAY_S)}
        return [
            self._step(FindCleftParts, "find_cleft_parts", "parts", output=folder, **found),
            self._step(
                JoinParts, "join_parts", "join", labels=self.prediction, tables=folder, output=changes,
                fraction=0.0, min_size=1, largest_id=MAX_ID, **whole,
            ),
            self._step(
                ApplyCleftParts, "apply_cleft_parts", "clefts", changes=changes, output=self.output,
                dtype="uint64", chunk_shape=self.chunk_shape, format=self.format, **found,
            ),
            self._step(
                MarkClefts, "mark_clefts", "rows", max_distance_nm=self.max_distance_nm, **rows
            ),
            self._step(
                ConnectClefts, "connect_clefts", "connectors", part_shape=self.block_shape,
                split_above=self.split_above, **rows, **whole,
            ),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def _step(self, task: type[BlockwiseTask], kind: str, name: str, **values) -> BlockwiseTask:
        shared = {key: getattr(self, key) for key in RunConfig.operational}
        return task.from_dict({
            **shared, "kind": kind, "run": f"{self.run}.{name}", "run_dir": str(self.run_dir),
            "block_shape": self.block_shape, **values,
        })

    def _folder(self, name: str) -> str:
        return str(self.run_dir / "clefts" / self.run / name)

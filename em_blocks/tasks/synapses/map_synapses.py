"""Map synapses to supervoxels, segments and skeletons: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from em_blocks.config import LocalPath, Shape3
from em_blocks.tasks.base import BlockwiseTask, RunConfig, RunName
from em_blocks.tasks.synapses.label_lookup import LabelOptions
from em_blocks.tasks.synapses.map_sites import MapSites
from em_blocks.tasks.synapses.map_skeletons import IndexNodes, MapNodes, MapSkeletons
from em_blocks.tasks.synapses.skeleton_options import SkeletonOptions


class MapSynapses(LabelOptions, RunConfig):
    """What lies at the sites of stored synapses: supervoxels, segments and skeletons.

    ``RUN.sites`` writes supervoxels and segments. With `skeletons`, ``RUN.nodes`` finds the segments of
    all nodes, ``RUN.node_index`` decides which of them may claim sites, and ``RUN.skeletons`` writes
    the skeletons. Nothing is written but fields of rows that exist. Synapses that are detected anew
    lose theirs; the same command maps them again.
    """

    kind: Literal["map_synapses"]
    run_dir: LocalPath = Field(
        description="Folder of the run that detected the synapses, for its database and for logs."
    )
    synapses: RunName = Field(description="The run that detected the synapses.")
    outside: Literal["error", "leave"] = Field(
        "error", description="If the labels do not cover a site: refuse to start, or leave its fields "
        "empty."
    )
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) of the labels that one block handles. Default: whole "
        "chunks, about 8 million voxels."
    )

    skeletons: SkeletonOptions | None = Field(
        None, description="Also map sites to skeletons; needs segments."
    )

    @model_validator(mode="after")
    def _skeletons_need_segments(self) -> Self:
        if self.skeletons is not None and self.lut is None and not self.labels_are_segments:
            raise ValueError(
                "'skeletons' are found by segment, so either 'lut' or 'labels_are_segments' is needed"
            )
        return self

    def steps(self) -> list[BlockwiseTask]:
        return [self.sites(), *self.skeleton_steps()]

    def sites(self) -> MapSites:
        """Return the step that writes supervoxels and segments."""
        return self._step(MapSites, "sites", kind="map_sites", outside=self.outside)

    def skeleton_steps(self) -> list[BlockwiseTask]:
        """Return the steps that write skeletons, if any are wanted."""
        if self.skeletons is None:
            return []
        folder = self.run_dir / "skeletons" / self.run
        nodes, index = str(folder / "nodes"), str(folder / "index")
        # Nodes were traced inside of neurons; one on background would be given to any neighbour.
        found = self._step(
            MapNodes, "nodes", kind="map_nodes", output=nodes, search_radius_nm=0
        )
        return [
            found,
            self._step(
                IndexNodes, "node_index", kind="index_nodes", nodes=nodes, output=index,
                part_shape=found.grid().block_shape,
            ),
            self._step(
                MapSkeletons, "skeletons", kind="map_skeletons", index=index,
                max_distance_nm=self.skeletons.max_distance_nm,
            ),
        ]

    def outputs_root(self) -> str:
        return str(self.run_dir)

    def _step(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        own = self.model_dump(mode="json", include=set(task.model_fields))
        return task.from_dict({**own, "run": f"{self.run}.{name}", **values})

"""Map synapses to supervoxels, segments and skeletons: the steps, and how they fit together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from em_blocks.config import LocalPath, Shape3
from em_blocks.tasks.base import BlockwiseTask, RunConfig, RunName
from em_blocks.tasks.label_lookup import LabelOptions
from em_blocks.tasks.map_sites import MapSites


class MapSynapses(LabelOptions, RunConfig):
    """What lies at the sites of stored synapses: ``RUN.sites`` writes supervoxels and segments.

    Nothing is written but fields of rows that exist. Synapses that are detected anew lose theirs;
    the same command maps them again.
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

    def steps(self) -> list[BlockwiseTask]:
        return [self.sites()]

    def sites(self) -> MapSites:
        """The step that writes supervoxels and segments."""
        return self._step(MapSites, "sites", kind="map_sites", outside=self.outside)

    def outputs_root(self) -> str:
        return str(self.run_dir)

    def _step(self, task: type[BlockwiseTask], name: str, **values) -> BlockwiseTask:
        own = self.model_dump(mode="json", include=set(task.model_fields))
        return task.from_dict({**own, "run": f"{self.run}.{name}", **values})

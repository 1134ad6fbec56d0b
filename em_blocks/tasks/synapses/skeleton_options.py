"""Which skeletons synapses are mapped to, and by which rules."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from em_blocks.config import LocalPath, StrictModel
from em_blocks.errors import ConfigError
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.volumes.skeletons.nodes import SkeletonNodes, digest_of, read_nodes
from em_blocks.volumes.skeletons.swc_files import SkeletonUnit, nm_per_unit
from em_blocks.volumes.synapse_files import read_synapses


class SkeletonOptions(StrictModel):
    """A site takes the skeleton with the nearest node in the same segment."""

    path: LocalPath = Field(
        description="SWC files in a folder, each named by the id of its neuron, or a JSON list of nodes "
        "{id, position [z, y, x] nm, neuron_id, parent_id}."
    )
    unit: SkeletonUnit = Field(
        "nm", description="Of the positions in SWC files: nm, um, a number of nm, or three (z, y, x), "
        "such as the size of voxels."
    )
    max_distance_nm: Annotated[float, Field(gt=0)] | None = Field(
        None, description="A site whose nearest node is farther away gets skeleton -2. Default: no "
        "bound."
    )
    noise_nodes: NonNegativeInt = Field(
        0, description="A skeleton with 1 to this many nodes in a segment does not claim it, unless it "
        "has an end of a true synapse there."
    )
    truth: LocalPath | None = Field(
        None, description="File of true synapses with skeletons; their ends count as nodes."
    )

    def identity(self) -> dict:
        """Return what tells whether the files have changed."""
        return {name: digest_of(path) for name, path in (("path", self.path), ("truth", self.truth))
                if path is not None}

    @cached_property
    def nodes(self) -> SkeletonNodes:
        """All nodes, then the ends of true synapses."""
        return SkeletonNodes(*(np.concatenate(c) for c in zip(self._traced, self._anchors, strict=True)))

    @cached_property
    def anchor(self) -> np.ndarray:
        """Which of `nodes` are ends of true synapses; (n,) bool."""
        return np.arange(len(self.nodes.skeleton)) >= len(self._traced.skeleton)

    @cached_property
    def _traced(self) -> SkeletonNodes:
        return read_nodes(self.path, unit_nm=nm_per_unit(self.unit))

    @cached_property
    def _anchors(self) -> SkeletonNodes:
        synapses = Synapses.empty() if self.truth is None else read_synapses(self.truth)
        if self.truth is not None and not (synapses.pre_skeleton != UNMAPPED).any():
            raise ConfigError(
                f"The synapses in {self.truth} have no skeletons (id_skel_pre, id_skel_post), so their "
                "ends belong to no skeleton. Name a file with skeletons, or leave 'truth' out."
            )
        positions = np.concatenate([synapses.pre, synapses.post])
        skeleton = np.concatenate([synapses.pre_skeleton, synapses.post_skeleton])
        known = skeleton >= 0
        return SkeletonNodes(positions[known], skeleton[known])

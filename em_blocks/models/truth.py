"""Annotations of one piece of tissue: arrays from which heads make their targets and scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from em_blocks.geometry import Nm3

LABELS, PRE, POST = "labels", "pre", "post"
"""Names of the only label volume of most sources, and of both ends of its synapses."""

UNKNOWN, BACKGROUND, OBJECT = 0, 1, 2
"""Voxels of a class: not annotated; annotated and of something else; of the class.

As in all label volumes, 0 is where nothing is known: losses, balances and scores ignore it.
"""

METRIC = "metric"
"""Name of the mask of the voxels that count in scores."""

ANNOTATED = "annotated"
"""Name of the mask of the voxels whose instance is known, where 0 among the labels is background.

Heads that read it learn from 0, too. A source without such a mask is annotated in all of its labels.
"""


@dataclass(frozen=True)
class Truth:
    """Labels, masks and points of one box, on one grid. Axes are z, y, x.

    A head says by its `needs` which entries it reads: "labels/NAME", "masks/NAME", "points/NAME".

    Attributes
    ----------
    voxel_size : (3,) floats
        nm.
    labels : dict of name to (z, y, x) unsigned array
        Ids, 0 where nothing is known. A source with one label volume calls it "labels". Those of a
        class are uint8: `UNKNOWN`, `BACKGROUND` or `OBJECT`.
    masks : dict of name to (z, y, x) uint8 array
        1 where something holds (what is annotated, what is tissue), 0 elsewhere.
    points : dict of name to (n, 3) float array
        Positions in nm, in the frame of `offset`; they may lie outside of the box. Row i of "pre"
        and row i of "post" are the two ends of one synapse.
    offset : (3,) floats
        Corner of the first voxel, nm.
    """

    voxel_size: Nm3
    labels: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    points: dict[str, np.ndarray] = field(default_factory=dict)
    offset: Nm3 = (0.0, 0.0, 0.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x) of every label volume and mask."""
        return next(iter({**self.labels, **self.masks}.values())).shape

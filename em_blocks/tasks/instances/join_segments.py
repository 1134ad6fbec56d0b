"""One object for every connected part of a segmentation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from em_blocks.tasks.components.join_blocks import Decided
from em_blocks.tasks.objects.steps import JoinObjects
from em_blocks.volumes.stores.tables import Columns


class JoinSegments(JoinObjects):
    """As `JoinObjects`, of the ids of segments, which are all of one class."""

    kind: Literal["join_segments"]

    def decide(self, parts: Columns, edges: np.ndarray) -> Decided:
        found = super().decide(parts, edges)
        ids = found.tables["classes"]["id"]
        return found._replace(tables={"classes": {"id": ids, "class": np.ones_like(ids)}})

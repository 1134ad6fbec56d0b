"""Names of what the gunpowder graph carries. Labels and masks have a key per name."""

from __future__ import annotations

from functools import cache

import gunpowder as gp

from em_blocks.models.truth import LABELS as ONLY_LABELS

RAW = gp.ArrayKey("RAW")
SYNAPSES = gp.GraphKey("SYNAPSES")


@cache
def labels_key(name: str) -> gp.ArrayKey:
    """Key of the label volume that a source calls `name`."""
    return gp.ArrayKey("LABELS" if name == ONLY_LABELS else f"LABELS/{name}")


@cache
def mask_key(name: str) -> gp.ArrayKey:
    """Key of the mask that a source calls `name`."""
    return gp.ArrayKey(f"MASKS/{name}")


LABELS = labels_key(ONLY_LABELS)

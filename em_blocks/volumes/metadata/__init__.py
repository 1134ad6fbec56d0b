"""Place and axes of an array, from all dialects of metadata.

One module per dialect collects claims; `resolve` weighs them.
"""

from em_blocks.volumes.metadata.claims import Group, Stored
from em_blocks.volumes.metadata.resolve import Resolved, place_in_config, resolve, resolve_axes

__all__ = ["Group", "Resolved", "Stored", "place_in_config", "resolve", "resolve_axes"]

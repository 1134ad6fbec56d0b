"""N5: ``attributes.json`` holds everything of an array (x, y, z, c), as other N5 writers have it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from em_blocks.volumes.formats.base import DriverFormat, Layout
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.stores import store

_FILE = "attributes.json"
_OF_PYRAMIDS = {"multiScale", "scales", "downsamplingFactors"}
_MOST_LEVELS = 32


class N5(DriverFormat):
    """Datasets of N5."""

    driver = "n5"
    marker = attributes_file = _FILE
    group_file = (_FILE, {"n5": "2.0.0"})
    container_suffix = ".n5"
    x_first = True
    viewer_scheme = "n5"

    def is_array(self, path: str) -> bool:
        return "dimensions" in (store.read_json(path, _FILE) or {})

    def creation_spec(self, path: str | None, layout: Layout, attributes: dict) -> dict:
        # N5 itself owns `resolution` and `units` and wants one value per axis, x first.
        own = {k: v for k, v in attributes.items() if k not in ("resolution", "units")}
        return {"metadata": {
            **own,
            "dimensions": layout.full(layout.shape)[::-1],
            "blockSize": layout.full(layout.chunk_shape)[::-1],
            "dataType": str(layout.dtype),
            "compression": {"type": "gzip", "level": 1},
        }}

    def stored(self, path: str, shape: Sequence[int], attributes: dict) -> Stored:
        return replace(super().stored(path, shape, attributes), n5=True)

    def own_levels(self, path: str, attributes: dict) -> list[str]:
        """Return datasets s0, s1, ..., if the group or the second one says that they are levels."""
        levels = (store.join(path, f"s{level}") for level in range(_MOST_LEVELS))
        found = list(itertools.takewhile(self.is_array, levels))
        if found and attributes.keys() & _OF_PYRAMIDS:
            return found
        second = self.read_attributes(found[1]) if len(found) > 1 else {}
        return found if "downsamplingFactors" in second else []

    def viewer_axes(self, path: str, attributes: dict, rank: int) -> list[str]:
        return attributes.get("axes", ["x", "y", "z"])

    def viewer_problem(self, *, channels: bool) -> str | None:
        if not channels:
            return None
        return (
            "is an N5 array with channels, which neuroglancer cannot show where its voxel size is that "
            "of three axes. Store it as zarr."
        )

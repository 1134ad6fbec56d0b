"""zarr v3: ``zarr.json`` holds everything of an array (c, z, y, x); chunks may lie in shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from em_blocks.volumes.formats.base import DriverFormat, Layout, viewer_names
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.stores import store

_FILE = "zarr.json"


class Zarr3(DriverFormat):
    """Arrays of zarr v3; groups follow OME-NGFF 0.5."""

    driver = "zarr3"
    marker = attributes_file = _FILE
    group_file = (_FILE, {"zarr_format": 3, "node_type": "group"})
    container_suffix = ".zarr"
    has_shards = has_pyramids = True
    viewer_scheme = "zarr3"

    def is_array(self, path: str) -> bool:
        return (store.read_json(path, _FILE) or {}).get("node_type") == "array"

    def creation_spec(self, path: str | None, layout: Layout, attributes: dict) -> dict:
        endian = {"configuration": {"endian": "little"}} if layout.dtype.itemsize > 1 else {}
        codecs: list[dict] = [
            {"name": "bytes", **endian},
            {"name": "zstd", "configuration": {"level": 1}},
            # A chunk damaged on disk is an error, not other voxels.
            {"name": "crc32c"},
        ]
        chunk = layout.full(layout.chunk_shape)
        if layout.shard_shape is not None:
            sharding = {"chunk_shape": chunk, "codecs": codecs}
            codecs = [{"name": "sharding_indexed", "configuration": sharding}]
            chunk = layout.full(layout.shard_shape)
        return {"metadata": {
            "shape": layout.full(layout.shape),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": {"name": "default"},
            "data_type": str(layout.dtype),
            "fill_value": 0,
            "codecs": codecs,
            "dimension_names": layout.axes,
            "attributes": attributes,
        }}

    def read_attributes(self, path: str) -> dict:
        return super().read_attributes(path).get("attributes", {})

    def write_attributes(self, path: str, attributes: dict) -> None:
        merged = {**self.read_attributes(path), **attributes}
        super().write_attributes(path, {"attributes": merged})

    def stored(self, path: str, shape: Sequence[int], attributes: dict) -> Stored:
        return replace(super().stored(path, shape, attributes), names=_axes(path) or ())

    def group_attributes(self, path: str) -> dict | None:
        values = super().group_attributes(path)
        if values is None:
            return None
        attributes = values.get("attributes")
        return attributes if isinstance(attributes, dict) else {}

    def pyramid_attributes(self, multiscale: dict) -> dict:
        return {"ome": {"version": "0.5", "multiscales": [multiscale]}}

    def viewer_axes(self, path: str, attributes: dict, rank: int) -> list[str]:
        return viewer_names(_axes(path), rank, "dim_")


def _axes(path: str) -> list[str | None] | None:
    return (store.read_json(path, _FILE) or {}).get("dimension_names")

"""The four storage formats, and what differs between them.

=============  =====================================  ==========================
format         axis order on disk                     where attributes live
=============  =====================================  ==========================
zarr           (c, z, y, x)                           ``.zattrs``
zarr3          (c, z, y, x)                           ``zarr.json``, attributes
n5             (x, y, z, c), as other N5 writers do   ``attributes.json``
precomputed    (x, y, z, c)                           ``info`` and ``em_blocks.json``
=============  =====================================  ==========================
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from em_blocks.errors import VolumeError
from em_blocks.geometry import TOLERANCE_VOXELS, Frame, Triple
from em_blocks.volumes import store
from em_blocks.volumes.attributes import read_frame

Format = Literal["zarr", "zarr3", "n5", "precomputed"]

DRIVERS: dict[str, str] = {
    "zarr": "zarr",
    "zarr3": "zarr3",
    "n5": "n5",
    "precomputed": "neuroglancer_precomputed",
}
_MARKERS = {"zarr": ".zarray", "zarr3": "zarr.json", "precomputed": "info", "n5": "attributes.json"}


def reversed_on_disk(format: Format) -> bool:
    """Whether the format stores x first."""
    return format in ("n5", "precomputed")


def detect(path: str) -> Format | None:
    """The format of the array at `path`; None where there is no array."""
    for format, marker in _MARKERS.items():
        values = store.read_json(path, marker)
        if values is None or (format == "zarr3" and values.get("node_type") != "array"):
            continue
        if format == "n5" and "dimensions" not in values:
            continue
        return format
    return None


def read_attributes(path: str, format: Format) -> dict:
    """All user attributes of an array."""
    if format == "zarr":
        return store.read_json(path, ".zattrs") or {}
    if format == "zarr3":
        return (store.read_json(path, "zarr.json") or {}).get("attributes", {})
    if format == "n5":
        return store.read_json(path, "attributes.json") or {}
    return store.read_json(path, "em_blocks.json") or {}


def write_attributes(path: str, format: Format, attributes: dict) -> None:
    """Replace the named user attributes, leave others alone."""
    if format in ("zarr", "precomputed"):
        name = ".zattrs" if format == "zarr" else "em_blocks.json"
        store.write_json(path, name, {**(store.read_json(path, name) or {}), **attributes})
    elif format == "zarr3":
        values = store.read_json(path, "zarr.json")
        store.write_json(
            path, "zarr.json", {**values, "attributes": {**values.get("attributes", {}), **attributes}}
        )
    else:
        # N5 itself owns `resolution` and `units` and wants one value per axis, x first.
        own = {k: v for k, v in attributes.items() if k not in ("resolution", "units")}
        values = store.read_json(path, "attributes.json")
        store.write_json(path, "attributes.json", {**values, **own})


def frame_of(path: str, format: Format, attributes: dict) -> Frame:
    """Voxel size and offset of an array; VolumeError where nothing tells them."""
    if format == "precomputed":
        scale = store.read_json(path, "info")["scales"][0]
        size = scale["resolution"][::-1]
        offset = scale.get("voxel_offset", [0, 0, 0])[::-1]
        return Frame(size, [o * s for o, s in zip(offset, size, strict=True)])
    parent, name = store.split_parent(path)
    return read_frame(attributes, _group_attributes(parent, format), name, path)


def _group_attributes(parent: str, format: Format) -> dict:
    if not parent or format == "n5":
        return {}
    if format == "zarr":
        return store.read_json(parent, ".zattrs") or {}
    return (store.read_json(parent, "zarr.json") or {}).get("attributes", {})


def write_group_marker(path: str, format: Format) -> None:
    """Make the folder of an array a group, so that zarr and N5 readers can walk into it."""
    if format == "n5" and store.read_json(path, "attributes.json") is None:
        store.write_json(path, "attributes.json", {"n5": "2.0.0"})
    if format == "zarr" and store.read_json(path, ".zgroup") is None:
        store.write_json(path, ".zgroup", {"zarr_format": 2})
    if format == "zarr3" and store.read_json(path, "zarr.json") is None:
        store.write_json(path, "zarr.json", {"zarr_format": 3, "node_type": "group"})


def create_spec(
    format: Format,
    *,
    shape: Triple,
    channels: int | None,
    chunk_shape: Triple,
    shard_shape: Triple | None,
    dtype: np.dtype,
    frame: Frame,
) -> dict:
    """The tensorstore spec (without kvstore) that creates an array.

    Shapes are voxels (z, y, x). All channels of a voxel share a chunk, so that one
    block writes whole chunks.
    """
    lead = [] if channels is None else [channels]
    full = dict(shape=[*lead, *shape], chunks=[*lead, *chunk_shape])
    if format == "zarr":
        metadata = _zarr2(full, dtype)
    elif format == "zarr3":
        metadata = _zarr3(full, [*lead, *(shard_shape or chunk_shape)], dtype)
    elif format == "n5":
        metadata = _n5(full, dtype)
    else:
        return {"driver": DRIVERS[format], **_precomputed(shape, channels, chunk_shape, dtype, frame)}
    return {"driver": DRIVERS[format], "metadata": metadata}


def _zarr2(full: dict, dtype: np.dtype) -> dict:
    return {
        "shape": full["shape"],
        "chunks": full["chunks"],
        "dtype": dtype.str,
        "fill_value": 0,
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
        # Nested folders: a flat one would hold millions of files.
        "dimension_separator": "/",
    }


def _zarr3(full: dict, shard: list[int], dtype: np.dtype) -> dict:
    inner = [
        {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1
        else {"name": "bytes"},
        {"name": "zstd", "configuration": {"level": 3}},
    ]
    codecs = inner
    if shard != full["chunks"]:
        codecs = [
            {
                "name": "sharding_indexed",
                "configuration": {"chunk_shape": full["chunks"], "codecs": inner},
            }
        ]
    return {
        "shape": full["shape"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "chunk_key_encoding": {"name": "default"},
        "data_type": str(dtype),
        "fill_value": 0,
        "codecs": codecs,
    }


def _n5(full: dict, dtype: np.dtype) -> dict:
    return {
        "dimensions": full["shape"][::-1],
        "blockSize": full["chunks"][::-1],
        "dataType": str(dtype),
        "compression": {"type": "gzip", "level": 1},
    }


def _precomputed(
    shape: Triple, channels: int | None, chunk_shape: Triple, dtype: np.dtype, frame: Frame
) -> dict:
    voxels = [o / v for o, v in zip(frame.offset, frame.voxel_size, strict=True)]
    if any(abs(v - round(v)) > TOLERANCE_VOXELS for v in voxels):
        raise VolumeError(
            f"The precomputed format stores offsets as whole voxels, but the offset {frame.offset} nm "
            f"is {voxels} voxels of {frame.voxel_size} nm. Choose an offset on the voxel grid, or "
            "another format."
        )
    return {
        "multiscale_metadata": {
            "type": "segmentation" if dtype.itemsize == 8 else "image",
            "data_type": str(dtype),
            "num_channels": channels or 1,
        },
        "scale_metadata": {
            "key": "s0",
            "size": list(shape[::-1]),
            "chunk_size": list(chunk_shape[::-1]),
            "encoding": "raw",
            "resolution": list(frame.voxel_size[::-1]),
            "voxel_offset": [round(v) for v in voxels[::-1]],
        },
    }

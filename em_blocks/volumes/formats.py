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

import os
from typing import Literal

import numpy as np
import tensorstore as ts

from em_blocks.config import is_url
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
_ATTRIBUTES = {**_MARKERS, "zarr": ".zattrs", "precomputed": "em_blocks.json"}
_GROUPS: dict[str, tuple[str, dict]] = {
    "zarr": (".zgroup", {"zarr_format": 2}),
    "zarr3": ("zarr.json", {"zarr_format": 3, "node_type": "group"}),
    "n5": ("attributes.json", {"n5": "2.0.0"}),
}


def reversed_on_disk(format: Format) -> bool:
    """Whether the format stores x first."""
    return format in ("n5", "precomputed")


def detect(path: str) -> Format | None:
    """The format of the array at `path`; None where there is no array."""
    for format, marker in _MARKERS.items():
        values = store.read_json(path, marker)
        if values is not None and _is_array(format, values):
            return format
    return None


def _is_array(format: Format, values: dict) -> bool:
    if format == "zarr3":
        return values.get("node_type") == "array"
    if format == "n5":
        return "dimensions" in values
    return "scales" in values if format == "precomputed" else True


def arrays_below(path: str) -> list[str]:
    """Names of the arrays directly in the local folder `path`, for error messages."""
    if is_url(path) or not os.path.isdir(path):
        return []
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and detect(entry.path))


def read_attributes(path: str, format: Format) -> dict:
    """All user attributes of an array."""
    values = store.read_json(path, _ATTRIBUTES[format]) or {}
    return values.get("attributes", {}) if format == "zarr3" else values


def write_attributes(path: str, format: Format, attributes: dict) -> None:
    """Replace the named user attributes, leave others alone."""
    name = _ATTRIBUTES[format]
    values = store.read_json(path, name) or {}
    if format == "zarr3":
        attributes = {"attributes": {**values.get("attributes", {}), **attributes}}
    store.write_json(path, name, {**values, **attributes})


def frame_of(path: str, format: Format, attributes: dict) -> Frame:
    """Voxel size and offset of an array; VolumeError where nothing tells them."""
    if format == "precomputed":
        scale = store.read_json(path, "info")["scales"][0]
        size = scale["resolution"][::-1]
        offset = scale.get("voxel_offset", [0, 0, 0])[::-1]
        return Frame(size, [o * s for o, s in zip(offset, size, strict=True)])
    parent, name = store.split_parent(path)
    group = _group_attributes(parent, format)
    return read_frame(attributes, group, name=name, source=path, n5=format == "n5")


def _group_attributes(parent: str, format: Format) -> dict:
    if not parent or format == "n5":
        return {}
    return read_attributes(parent, format)


def check_free(path: str) -> None:
    """Raise `VolumeError` unless an array can be made at `path` without touching another one."""
    if any(store.read_json(path, name) is not None for name in (*_MARKERS.values(), ".zgroup")):
        raise VolumeError(
            f"{path} exists already and is not overwritten. Choose another name, or delete it."
        )
    for group in store.groups_above(path):
        if detect(group) is not None:
            raise VolumeError(
                f"{path} cannot be made: {group} is itself an array, and an array cannot hold "
                "another one. Choose a name beside it."
            )


def create_array(
    path: str,
    format: Format,
    *,
    shape: Triple,
    channels: int | None,
    chunk_shape: Triple,
    shard_shape: Triple | None,
    dtype: np.dtype,
    frame: Frame,
    attributes: dict,
) -> None:
    """Make an array and the groups above it.

    The file by which `detect` finds the array is written last and holds or follows its
    attributes: a process killed here leaves a whole array or none.
    Shapes are voxels (z, y, x). All channels of a voxel share a chunk, so that one
    block writes whole chunks.
    """
    lead = [] if channels is None else [channels]
    full = {"shape": [*lead, *shape], "chunks": [*lead, *chunk_shape]}
    if format == "zarr":
        metadata = {"metadata": _zarr2(full, dtype)}
    elif format == "zarr3":
        metadata = {"metadata": _zarr3(full, shard_shape and [*lead, *shard_shape], dtype, attributes)}
    elif format == "n5":
        metadata = {"metadata": _n5(full, dtype, attributes)}
    else:
        metadata = _precomputed(shape, channels, chunk_shape, dtype, frame)
    for group in store.groups_above(path):
        _write_group_marker(group, format)
    if format in ("zarr", "precomputed"):
        store.write_json(path, _ATTRIBUTES[format], attributes)
    spec = {"driver": DRIVERS[format], "kvstore": store.kvstore_spec(path), **metadata}
    ts.open(spec, create=True, open=False).result()


def _write_group_marker(path: str, format: Format) -> None:
    """Make the folder `path` a group, so that zarr and N5 readers can walk into it."""
    name, values = _GROUPS.get(format, (None, None))
    if name is not None and store.read_json(path, name) is None:
        store.write_json(path, name, values)


def _zarr2(full: dict, dtype: np.dtype) -> dict:
    return {
        "shape": full["shape"],
        "chunks": full["chunks"],
        "dtype": dtype.str,
        "fill_value": 0,
        # Level 1 writes EM and labels 1.2 to 2.2 times faster than level 3, and as small within
        # 15 %; lz4 writes faster still, but does not make EM any smaller.
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1},
        # Nested folders: a flat one would hold millions of files.
        "dimension_separator": "/",
    }


def _zarr3(full: dict, shard: list[int] | None, dtype: np.dtype, attributes: dict) -> dict:
    codecs = [
        {"name": "bytes", **({"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {})},
        {"name": "zstd", "configuration": {"level": 1}},
        # A chunk damaged on disk is an error, not other voxels.
        {"name": "crc32c"},
    ]
    if shard:
        sharding = {"chunk_shape": full["chunks"], "codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    grid = {"chunk_shape": shard or full["chunks"]}
    return {
        "shape": full["shape"],
        "chunk_grid": {"name": "regular", "configuration": grid},
        "chunk_key_encoding": {"name": "default"},
        "data_type": str(dtype),
        "fill_value": 0,
        "codecs": codecs,
        "attributes": attributes,
    }


def _n5(full: dict, dtype: np.dtype, attributes: dict) -> dict:
    # N5 itself owns `resolution` and `units` and wants one value per axis, x first.
    own = {k: v for k, v in attributes.items() if k not in ("resolution", "units")}
    return {
        **own,
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

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorstore as ts

from em_blocks.config import is_url
from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame, Triple
from em_blocks.volumes.formats import precomputed
from em_blocks.volumes.metadata import Group, Stored
from em_blocks.volumes.metadata.attributes import are_ours
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.stores import store

Format = Literal["zarr", "zarr3", "n5", "precomputed"]

DRIVERS: dict[str, str] = {
    "zarr": "zarr",
    "zarr3": "zarr3",
    "n5": "n5",
    "precomputed": "neuroglancer_precomputed",
}
_MARKERS = {"zarr": ".zarray", "zarr3": "zarr.json", "precomputed": precomputed.INFO,
            "n5": "attributes.json"}
_ATTRIBUTES = {**_MARKERS, "zarr": ".zattrs", "precomputed": precomputed.ATTRIBUTES}
_GROUPS: dict[str, tuple[str, dict]] = {
    "zarr": (".zgroup", {"zarr_format": 2}),
    "zarr3": ("zarr.json", {"zarr_format": 3, "node_type": "group"}),
    "n5": ("attributes.json", {"n5": "2.0.0"}),
}
_HIGHEST = 3
"""Folders above an array in no container that are asked about it."""


@dataclass(frozen=True)
class Layout:
    """Everything that decides how an array is stored, apart from its format.

    Shapes are voxels (z, y, x). All channels of a voxel share a chunk, so that one
    block writes whole chunks.
    """

    shape: Triple
    dtype: np.dtype
    frame: Frame
    chunk_shape: Triple
    channels: int | None = None
    shard_shape: Triple | None = None

    @property
    def axes(self) -> list[str]:
        """Names of the axes."""
        return [*([] if self.channels is None else ["c"]), *SPACE]

    def full(self, shape: Triple) -> list[int]:
        """`shape` with the channel axis, if there is one."""
        return [*([] if self.channels is None else [self.channels]), *shape]


def reversed_on_disk(format: Format) -> bool:
    """Whether the format stores x first."""
    return format in ("n5", "precomputed")


def detect(path: str) -> Format | None:
    """The format of the array at `path`; None where there is no array."""
    for format, marker in _MARKERS.items():
        values = store.read_json(path, marker)
        if values is not None and _is_array(format, values):
            return format
    return "precomputed" if precomputed.is_scale(path) else None


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


def stored(path: str, format: Format, shape: Sequence[int], attributes: dict) -> Stored:
    """All metadata of the array at `path`, those of the groups it lies in too.

    Parameters
    ----------
    shape : sequence of int
        As numpy shows the array: the slowest axis first.
    attributes : dict
        Those of the array, as `read_attributes` gives them.
    """
    if format == "precomputed":
        return Stored(path, tuple(shape), attributes, scale=precomputed.scale_metadata(path))
    metadata = (store.read_json(path, "zarr.json") or {}) if format == "zarr3" else {}
    # An array of ours tells everything itself; what the group says of it may be of one that was
    # deleted, until its pyramid is finished.
    groups = [] if are_ours(attributes) else list(_groups(path, format))
    return Stored(
        path, tuple(shape), attributes, groups, metadata.get("dimension_names") or (),
        n5=format == "n5",
    )


def _groups(path: str, format: Format) -> Iterator[Group]:
    """The groups that an array lies in, the nearest first; folders between may be none."""
    above = store.groups_above(path)[::-1] or list(_folders_above(path))
    for folder in above:
        attributes = _group_attributes(folder, format)
        if attributes is not None:
            yield Group(folder, path.rstrip("/").removeprefix(f"{folder}/"), attributes)


def _folders_above(path: str) -> Iterator[str]:
    """The folders that an array in no container lies in, the nearest first, but not all."""
    for _ in range(_HIGHEST):
        folder = store.split_parent(path)[0]
        if not folder or (is_url(path) and not is_url(folder)):
            return
        yield (path := folder)


def _group_attributes(path: str, format: Format) -> dict | None:
    """User attributes of a group; None where there is none."""
    values = store.read_json(path, _ATTRIBUTES[format])
    if values is None and format == "zarr":
        values = store.read_json(path, _GROUPS[format][0]) and {}
    if values is None:
        return None
    if format == "zarr3":
        values = values.get("attributes")
    return values if isinstance(values, dict) else {}


def check_free(path: str) -> None:
    """Raise `VolumeError` unless an array can be made at `path` without touching another one."""
    names = (*_MARKERS.values(), ".zgroup")
    if precomputed.is_taken(path) or any(store.read_json(path, n) is not None for n in names):
        raise VolumeError(
            f"{path} exists already and is not overwritten. Choose another name, or delete it."
        )
    for group in store.groups_above(path):
        if detect(group) is not None:
            raise VolumeError(
                f"{path} cannot be made: {group} is itself an array, and an array cannot hold "
                "another one. Choose a name beside it."
            )


def check_layout(format: Format, layout: Layout) -> None:
    """Raise ValueError where `format` cannot hold an array of this layout."""
    if layout.shard_shape is not None and format != "zarr3":
        raise ValueError(f"the format {format} has no shards, zarr3 has")
    # Made in memory, as an array without voxels: only the format knows all of its rules.
    spec = {"kvstore": {"driver": "memory"}, **_spec(None, format, layout, {})}
    ts.open(spec, create=True).result()


def create_array(path: str, format: Format, layout: Layout, attributes: dict) -> None:
    """Make an array and the groups above it.

    The file by which `detect` finds the array is written last and holds or follows its
    attributes: a process killed here leaves a whole array or none.
    """
    for group in store.groups_above(path):
        _write_group_marker(group, format)
    folder = path
    if format == "precomputed":
        precomputed.forget_scale(path)
        folder, _ = precomputed.split_scale(path)
    if format == "zarr":  # xarray's names of axes; zarr v3 has its own, dimension_names
        attributes = {"_ARRAY_DIMENSIONS": layout.axes, **attributes}
    if format in ("zarr", "precomputed"):
        store.write_json(path, _ATTRIBUTES[format], attributes)
    spec = {"kvstore": store.kvstore_spec(folder), **_spec(path, format, layout, attributes)}
    ts.open(spec, create=True, open=False).result()


def open_spec(path: str, format: Format) -> dict:
    """The tensorstore spec that opens the array at `path`."""
    folder, scale = precomputed.location(path) if format == "precomputed" else (path, None)
    chosen = {} if scale is None else {"scale_metadata": {"key": scale}}
    return {"driver": DRIVERS[format], "kvstore": store.kvstore_spec(folder), **chosen}


def _spec(path: str | None, format: Format, layout: Layout, attributes: dict) -> dict:
    """The tensorstore spec, without kvstore, that creates an array."""
    if format == "zarr":
        metadata = {"metadata": _zarr2(layout)}
    elif format == "zarr3":
        metadata = {"metadata": _zarr3(layout, attributes)}
    elif format == "n5":
        metadata = {"metadata": _n5(layout, attributes)}
    else:
        labels = attributes.get("labels", layout.dtype.itemsize == 8)
        metadata = precomputed.spec(path, layout, labels=labels)
    return {"driver": DRIVERS[format], **metadata}


def write_group_attributes(path: str, format: Format, attributes: dict) -> None:
    """Replace the named attributes of a group, which is made if there is none."""
    _write_group_marker(path, format)
    write_attributes(path, format, attributes)


def _write_group_marker(path: str, format: Format) -> None:
    """Make the folder `path` a group, so that zarr and N5 readers can walk into it."""
    name, values = _GROUPS.get(format, (None, None))
    if name is not None and store.read_json(path, name) is None:
        store.write_json(path, name, values)


def _zarr2(layout: Layout) -> dict:
    return {
        "shape": layout.full(layout.shape),
        "chunks": layout.full(layout.chunk_shape),
        "dtype": layout.dtype.str,
        "fill_value": 0,
        # Level 1 writes EM and labels 1.2 to 2.2 times faster than level 3, and as small within
        # 15 %; lz4 writes faster still, but does not make EM any smaller.
        "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1},
        # Nested folders: a flat one would hold millions of files.
        "dimension_separator": "/",
    }


def _zarr3(layout: Layout, attributes: dict) -> dict:
    endian = {"configuration": {"endian": "little"}} if layout.dtype.itemsize > 1 else {}
    codecs = [
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
    return {
        "shape": layout.full(layout.shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default"},
        "data_type": str(layout.dtype),
        "fill_value": 0,
        "codecs": codecs,
        "dimension_names": layout.axes,
        "attributes": attributes,
    }


def _n5(layout: Layout, attributes: dict) -> dict:
    # N5 itself owns `resolution` and `units` and wants one value per axis, x first.
    own = {k: v for k, v in attributes.items() if k not in ("resolution", "units")}
    return {
        **own,
        "dimensions": layout.full(layout.shape)[::-1],
        "blockSize": layout.full(layout.chunk_shape)[::-1],
        "dataType": str(layout.dtype),
        "compression": {"type": "gzip", "level": 1},
    }

"""Registry of the storage formats, and detection of the format of an array.

=============  =====================================  ==========================
format         axis order on disk                     where attributes live
=============  =====================================  ==========================
zarr           (c, z, y, x)                           ``.zattrs``
zarr3          (c, z, y, x)                           ``zarr.json``, attributes
n5             (x, y, z, c), as other N5 writers do   ``attributes.json``
precomputed    (x, y, z, c)                           ``info`` and ``em_blocks.json``
=============  =====================================  ==========================

Other packages add formats by entry points of the group ``em_blocks.formats``: subclasses of
`StorageFormat`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from em_blocks.config import is_url
from em_blocks.errors import VolumeError
from em_blocks.geometry import Triple
from em_blocks.plugins import Registry
from em_blocks.volumes.formats.base import StorageFormat
from em_blocks.volumes.stores import store

_HERE = "em_blocks.volumes.formats"
_BUILTIN = {
    "zarr": f"{_HERE}.zarr2:Zarr2", "zarr3": f"{_HERE}.zarr3:Zarr3", "n5": f"{_HERE}.n5:N5",
    "precomputed": f"{_HERE}.precomputed:Precomputed",
}
_OF_PYRAMIDS = ("zarr", "zarr3", "precomputed")
FORMATS = Registry("em_blocks.formats", _BUILTIN, f"{_HERE}.base:StorageFormat")


@cache
def format_named(name: str) -> StorageFormat:
    """Return the format of this name; raises `ConfigError`."""
    return FORMATS.get(name)(name)


def all_formats() -> list[StorageFormat]:
    """Return all formats; those of other packages first: they may extend a builtin one."""
    return [format_named(name) for name in sorted(FORMATS.names(), key=_BUILTIN.__contains__)]


def _any(value: object) -> object:
    return _one_of(FORMATS.names(), value)


def _with_pyramids(value: object) -> object:
    if value in _OF_PYRAMIDS:
        return value  # without a look at other packages
    return _one_of([name for name in FORMATS.names() if format_named(name).has_pyramids], value)


def _one_of(names: list[str], value: object) -> object:
    if value in names:
        return value
    *most, last = map(repr, names)
    raise PydanticCustomError("literal_error", f"Input should be {', '.join(most)} or {last}")


Format = Annotated[
    str, BeforeValidator(_any), WithJsonSchema({"enum": list(_BUILTIN), "type": "string"})
]
"""Name of a storage format."""
PyramidFormat = Annotated[
    str, BeforeValidator(_with_pyramids),
    WithJsonSchema({"enum": list(_OF_PYRAMIDS), "type": "string"}),
]
"""Name of a storage format whose readers find the levels of a pyramid."""


def detect(path: str) -> StorageFormat | None:
    """Return the format of the array at `path`; None where there is no array."""
    return next((storage for storage in all_formats() if storage.is_array(path)), None)


def arrays_below(path: str) -> list[str]:
    """Return the names of the arrays directly in the local folder `path`, for error messages."""
    if is_url(path) or not os.path.isdir(path):
        return []
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and detect(entry.path))


def check_free(path: str) -> None:
    """Raise `VolumeError` unless an array can be made at `path` without touching another one."""
    if any(storage.is_taken(path) for storage in all_formats()):
        raise VolumeError(
            f"{path} exists already and is not overwritten. Choose another name, or delete it."
        )
    for group in store.groups_above(path):
        if detect(group) is not None:
            raise VolumeError(
                f"{path} cannot be made: {group} is itself an array, and an array cannot hold "
                "another one. Choose a name beside it."
            )


def block_shards(format: str, block_shape: Triple) -> Triple | None:
    """Return shards (voxels) of one block each; None where the format has no shards."""
    return block_shape if format_named(format).has_shards else None


def metadata_files() -> list[str]:
    """Return the names of the files that make a folder an array, then of its files of attributes."""
    storages = [format_named(name) for name in FORMATS.names()]
    names = [*(s.marker for s in storages), *(s.attributes_file for s in storages)]
    return list(dict.fromkeys(names))


def forget_array(path: str) -> None:
    """Remove what is stored elsewhere of an array whose folder was deleted."""
    for storage in all_formats():
        storage.forget(path)

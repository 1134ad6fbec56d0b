"""Chunks of precomputed volumes that CloudVolume compressed: ``0-64_0-64_0-64.gz`` and others.

Object stores send such a chunk under its plain name, if CloudVolume wrote it there. In a folder, or a
copy of one in a bucket, it has another name, and a reader that tries the plain name alone finds the
chunk missing, which reads as 0.
"""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import tensorstore as ts

from em_blocks.errors import VolumeError
from em_blocks.volumes.stores import store

_DECODERS: dict[str, Callable[[bytes], Any]] = {
    ".gz": gzip.decompress, ".br": imagecodecs.brotli_decode, ".zstd": imagecodecs.zstd_decode,
    ".bz2": bz2.decompress, ".xz": lzma.decompress,
}
SUFFIXES = tuple(_DECODERS)
_THREADS = 4
_DAMAGED = (EOFError, OSError, ValueError, RuntimeError, zlib.error, lzma.LZMAError)


def has_compressed_chunks(array: ts.TensorStore, folder: str) -> bool:
    """Return whether chunks in the folder of a scale are compressed by themselves.

    All names of a local folder are looked at; elsewhere three chunks.
    """
    local = store.local_path(folder)
    if local is None:
        return any(
            store.read_bytes(folder, chunk + suffix) is not None
            for chunk in _some(array) for suffix in SUFFIXES
        )
    try:
        with os.scandir(local) as entries:
            return any(entry.name.endswith(SUFFIXES) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise VolumeError(f"{folder} cannot be listed: {error.strerror}.") from error


def open_compressed(array: ts.TensorStore, folder: str, info: bytes, key: str) -> ts.TensorStore:
    """Return a read-only view of a scale that finds plain and compressed chunks alike.

    Parameters
    ----------
    array : tensorstore.TensorStore
        The scale, axes (x, y, z, c), as opened from its plain chunks.
    folder : str
        Path or URL of the folder of the chunks.
    info : bytes
        The file ``info`` of the volume.
    key : str
        Of the scale.
    """
    grid = read_shape(array)[:3]
    whole = array.domain

    def read(domain: ts.IndexDomain, values, _) -> None:
        # tensorstore decodes the chunks (raw, jpeg, compressed segmentation ...) from memory.
        context = ts.Context()
        memory = ts.KvStore.open({"driver": "memory"}, context=context).result()
        memory.write("info", info).result()
        for name in _names(domain, whole, grid):
            if (data := _chunk(folder, name)) is not None:
                memory.write(f"{key}/{name}", data).result()
        spec = {
            "driver": "neuroglancer_precomputed", "kvstore": {"driver": "memory"},
            "scale_metadata": {"key": key},
        }
        plain = ts.open(spec, context=context, open=True).result()
        values[...] = plain[domain].read().result()

    # Threads of its own: `read` waits for those of tensorstore.
    threads = ts.Context({"data_copy_concurrency": {"limit": _THREADS}})
    layout = ts.ChunkLayout(
        chunk_shape=read_shape(array), grid_origin=whole.inclusive_min
    )
    return ts.virtual_chunked(
        read, dtype=array.dtype, domain=whole, chunk_layout=layout, context=threads
    )


def decompressed(data: bytes, name: str) -> bytes:
    """Decompress the content of a file by the suffix of its name.

    Raises
    ------
    VolumeError
        If it is damaged.
    """
    decode = _DECODERS.get(Path(name).suffix)
    if decode is None:
        return data
    try:
        return decode(data)
    except _DAMAGED as error:
        raise VolumeError(
            f"The chunk {name} cannot be read ({type(error).__name__}: {error}). Restore the "
            "file; where it is lost permanently, delete it, and its voxels are 0."
        ) from error


def read_shape(array: ts.TensorStore) -> tuple[int, ...]:
    """Return the shape of what is best read together, in the order of the array's axes."""
    return tuple(size or 1 for size in array.chunk_layout.read_chunk.shape or array.shape)


def _some(array: ts.TensorStore) -> Iterator[str]:
    """Yield the names of the first, the middle and the last chunk."""
    grid, whole = read_shape(array)[:3], array.domain
    begin, end = whole.inclusive_min[:3], whole.exclusive_max[:3]
    middle = [(b + e) // 2 for b, e in zip(begin, end, strict=True)]
    for place in (begin, middle, [e - 1 for e in end]):
        index = tuple(slice(p, p + 1) for p in place)
        yield from _names(array[index].domain, whole, grid)


def _names(domain: ts.IndexDomain, whole: ts.IndexDomain, grid: Sequence[int]) -> Iterator[str]:
    """Return the names of the chunks that have voxels in `domain`."""
    ranges = []
    for axis, size in enumerate(grid):
        begin, end = whole.inclusive_min[axis], whole.exclusive_max[axis]
        first = begin + (domain.inclusive_min[axis] - begin) // size * size
        starts = range(first, domain.exclusive_max[axis], size)
        ranges.append([f"{start}-{min(start + size, end)}" for start in starts])
    return ("_".join(parts) for parts in itertools.product(*ranges))


def _chunk(folder: str, name: str) -> bytes | None:
    """Return the bytes of a chunk; None if it is missing.

    Raises
    ------
    VolumeError
        If it is damaged, or there in two spellings that differ.
    """
    found = {}
    for suffix in ("", *SUFFIXES):
        data = store.read_bytes(folder, name + suffix)
        if data is not None:
            found[name + suffix] = decompressed(data, store.join(folder, name + suffix))
    if len(set(found.values())) > 1:
        raise VolumeError(
            f"The chunk {store.join(folder, name)} is there as {' and '.join(found)}, which hold "
            "different voxels. Find out from their writer which of them is right, and delete the others."
        )
    return next(iter(found.values()), None)

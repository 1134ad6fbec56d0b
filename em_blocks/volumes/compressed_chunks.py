"""Chunks of local precomputed volumes that CloudVolume compressed: ``0-64_0-64_0-64.gz`` and others.

Object stores send such a chunk under its plain name. In a folder it has another one, and who looks
for the plain name alone takes it for missing, which reads as 0.
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

import imagecodecs
import tensorstore as ts

from em_blocks.errors import VolumeError

_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".br": imagecodecs.brotli_decode, ".zstd": imagecodecs.zstd_decode,
    ".bz2": bz2.decompress, ".xz": lzma.decompress,
}
SUFFIXES = tuple(_DECODERS)
_THREADS = 4
_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zlib.error, lzma.LZMAError)


def has_compressed_chunks(folder: Path) -> bool:
    """Whether any chunk in the folder of a scale is compressed by itself."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith(SUFFIXES) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise VolumeError(f"{folder} cannot be listed: {error.strerror}.") from error


def open_compressed(array: ts.TensorStore, folder: Path, info: bytes, key: str) -> ts.TensorStore:
    """A read-only view of a scale that finds plain and compressed chunks alike.

    Parameters
    ----------
    array : tensorstore.TensorStore
        The scale, axes (x, y, z, c), as opened from its plain chunks.
    folder : Path
        That of the chunks.
    info : bytes
        The file ``info`` of the volume.
    key : str
        Of the scale.
    """
    grid = array.chunk_layout.read_chunk.shape[:3]
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
        chunk_shape=array.chunk_layout.read_chunk.shape, grid_origin=whole.inclusive_min
    )
    return ts.virtual_chunked(
        read, dtype=array.dtype, domain=whole, chunk_layout=layout, context=threads
    )


def _names(domain: ts.IndexDomain, whole: ts.IndexDomain, grid: Sequence[int]) -> Iterator[str]:
    """Names of the chunks that have voxels in `domain`."""
    ranges = []
    for axis, size in enumerate(grid):
        begin, end = whole.inclusive_min[axis], whole.exclusive_max[axis]
        first = begin + (domain.inclusive_min[axis] - begin) // size * size
        starts = range(first, domain.exclusive_max[axis], size)
        ranges.append([f"{start}-{min(start + size, end)}" for start in starts])
    return ("_".join(parts) for parts in itertools.product(*ranges))


def decoded(path: Path) -> bytes | None:
    """What a file holds, decompressed as its suffix says; None if there is none.

    Raises
    ------
    VolumeError
        If it is damaged.
    """
    try:
        data = path.read_bytes()
        return _DECODERS[path.suffix](data) if path.suffix in _DECODERS else data
    except FileNotFoundError:
        return None
    except _DAMAGED as error:
        raise VolumeError(
            f"The chunk {path} cannot be read ({type(error).__name__}: {error}). Restore the "
            "file; where it is lost for good, delete it, and its voxels are 0."
        ) from error


def _chunk(folder: Path, name: str) -> bytes | None:
    """The bytes of a chunk; None if it is missing.

    Raises
    ------
    VolumeError
        If it is damaged, or there in two spellings that differ.
    """
    found = {}
    for suffix in ("", *SUFFIXES):
        path = folder / (name + suffix)
        data = decoded(path)
        if data is not None:
            found[path.name] = data
    if len(set(found.values())) > 1:
        raise VolumeError(
            f"The chunk {folder / name} is there as {' and '.join(found)}, which hold different voxels. "
            "Which of them is right, only who wrote them knows; delete the others."
        )
    return next(iter(found.values()), None)

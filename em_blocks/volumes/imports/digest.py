"""Identity at bounded cost: by bytes, or values, at places that are always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from em_blocks.volumes.imports.sources import USUAL_CHUNK, Source
from em_blocks.volumes.stores.signature import sign

BYTES_READ = 1 << 20
"""Bytes of a piece."""
MOST_PIECES = 64
"""Of a file that holds a whole volume."""
MOST_FILES_READ = 64
"""Of many images."""


def pieces(file: Path, n: int = 3) -> Iterator[bytes]:
    """Yield `n` pieces of a file, the first and the last included; all bytes of a small one."""
    size = file.stat().st_size
    begins = np.linspace(0, max(0, size - BYTES_READ), n).astype(int)
    with file.open("rb") as opened:
        for begin in np.unique(begins).tolist():
            opened.seek(begin)
            yield opened.read(BYTES_READ)


def identity_of(*files: Path) -> dict:
    """Return the size of files, each of which holds a volume or a part of it, and a digest of pieces."""
    digest = hashlib.sha256()
    for file in files:
        for piece in pieces(file, MOST_PIECES):
            digest.update(piece)
    return {"bytes": sum(file.stat().st_size for file in files), "sha256": digest.hexdigest()}


def digest_of_images(names: Sequence[str], files: Sequence[Path]) -> str:
    """Return a digest of names and sizes of all files, and of the bytes of some of them.

    A digest of all pixels would read a terabyte twice; times change with every copy.
    """
    digest = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name} {file.stat().st_size}\n".encode())
    for number in np.unique(np.linspace(0, len(files) - 1, MOST_FILES_READ).astype(int)):
        for piece in pieces(files[number]):
            digest.update(piece)
    return digest.hexdigest()


def signed_values(source: Source) -> dict:
    """Return what identifies the values of a source: a checksum of a bounded sample."""
    header = source.header()
    with source.open() as read:
        found = sign(
            read, header.shape, header.chunk_shape or USUAL_CHUNK, header.voxel_bytes
        )
    return {"values_crc32": found.crc32}

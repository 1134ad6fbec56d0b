"""Detection of changed arrays by checksums of a bounded sample of their pieces.

An array that no run of em_blocks made has no record of its history, and times of files change
with every copy. So some of its stored pieces are read, always the same ones: all of a small array, a
bounded number of a large one.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Triple, triple

SAMPLE_BYTES = 64 << 20
MOST_PIECES, FEWEST_PIECES = 1024, 16
UNREADABLE = -1
_READERS = 8


@dataclass(frozen=True)
class Signature:
    """Checksums of pieces of an array.

    Attributes
    ----------
    piece_shape, shape : (3,) int
        Voxels (z, y, x) of a piece, and of the array.
    pieces : dict of str to int
        CRC-32 of the values of piece ``zi/yi/xi``; -1 where it cannot be read.
    """

    piece_shape: Triple
    shape: Triple
    pieces: dict[str, int]

    @property
    def crc32(self) -> int:
        """One number for all of it."""
        return zlib.crc32(json.dumps(self.to_document(), sort_keys=True).encode())

    @property
    def whole(self) -> bool:
        """Whether it covers all pieces of the array, so that no change can be elsewhere."""
        return len(self.pieces) == math.prod(_counts(self.shape, self.piece_shape))

    def changed(self, now: Self) -> list[Box] | None:
        """Return the pieces that differ from those of `now`; None if the two cannot be compared."""
        if (self.piece_shape, self.shape) != (now.piece_shape, now.shape):
            return None
        if self.pieces.keys() != now.pieces.keys():
            return None
        return [self.box_of(key) for key, crc in self.pieces.items() if now.pieces[key] != crc]

    def to_document(self) -> dict:
        """Return the signature as a document for the database."""
        return {"piece_shape": list(self.piece_shape), "shape": list(self.shape), "pieces": self.pieces}

    @classmethod
    def from_document(cls, document: dict) -> Self:
        return cls(
            tuple(document["piece_shape"]), tuple(document["shape"]), dict(document["pieces"])
        )

    def box_of(self, key: str) -> Box:
        """Return the voxels of a piece."""
        corner = (int(i) * p for i, p in zip(key.split("/"), self.piece_shape, strict=True))
        return Box(triple(corner), self.piece_shape).intersect(Box((0, 0, 0), self.shape))


def sign(
    read: Callable[[Box], np.ndarray], shape: Triple, piece_shape: Triple, bytes_per_voxel: int, *,
    sample_bytes: int = SAMPLE_BYTES,
) -> Signature:
    """Return checksums of a sample of the pieces of an array, the same ones at every call.

    Parameters
    ----------
    read : function of a Box
        Values of voxels (z, y, x).
    shape, piece_shape : (3,) int
        Voxels (z, y, x) of the array, and of what is stored and so best read together.
    bytes_per_voxel : int
        All channels together.
    sample_bytes : int
        About how much is read at most, if that is 16 pieces or more.
    """
    pieces = Signature(triple(piece_shape), triple(shape), {})
    keys = _sampled(shape, piece_shape, sample_bytes // max(1, math.prod(piece_shape) * bytes_per_voxel))

    def checksum(key: str) -> int:
        try:
            return zlib.crc32(np.ascontiguousarray(read(pieces.box_of(key))).data)
        except VolumeError:
            return UNREADABLE  # its block fails with the reason, and the others go on

    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(keys, pool.map(checksum, keys), strict=True))
    return Signature(pieces.piece_shape, pieces.shape, found)


def _sampled(shape: Triple, piece_shape: Triple, affordable: int) -> list[str]:
    """Return the keys of the sampled pieces; fewer than asked for where draws coincide."""
    counts = _counts(shape, piece_shape)
    total = math.prod(counts)
    n = min(total, max(FEWEST_PIECES, min(MOST_PIECES, affordable)))
    chosen = np.arange(total)
    if n < total:
        # Drawn, not evenly spaced: the steps of a regular sample can miss whole columns of pieces.
        draws = np.random.default_rng(0).integers(0, total, 4 * n).tolist()
        chosen = np.array(list(dict.fromkeys([0, total - 1, *draws]))[:n])
    return [
        "/".join(map(str, place))
        for place in zip(*(axis.tolist() for axis in np.unravel_index(chosen, counts)), strict=True)
    ]


def _counts(shape: Triple, piece_shape: Triple) -> Triple:
    return triple(-(-s // p) for s, p in zip(shape, piece_shape, strict=True))

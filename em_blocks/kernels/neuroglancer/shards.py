"""Neuroglancer's sharded format: many values by their 64-bit keys, packed into few files.

Written from its description, https://neuroglancer-docs.web.app/datasource/precomputed/sharded.html
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# A reader fetches the index of a minishard before its first value: some 10 kB packed.
_KEYS_PER_MINISHARD = 1024

_C1, _C2, _C3, _C4 = 0x239B961B, 0xAB0E9789, 0x38B34AE5, 0xA1E38B93


@dataclass(frozen=True)
class Sharding:
    """Distribution of keys over 2 ** shard_bits files, each of 2 ** minishard_bits parts."""

    shard_bits: int = 0
    minishard_bits: int = 0

    @classmethod
    def of(cls, n_keys: int, n_shards: int) -> Sharding:
        """Choose a sharding for `n_keys` keys in at least `n_shards` files."""
        shard_bits = max(0, n_shards - 1).bit_length()
        per_minishard = _KEYS_PER_MINISHARD << shard_bits
        return cls(shard_bits, max(0, -(-n_keys // per_minishard) - 1).bit_length())

    @property
    def n_shards(self) -> int:
        return 1 << self.shard_bits

    def document(self) -> dict:
        """Return the sharding as ``info`` files describe it."""
        return {
            "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 0,
            "hash": "murmurhash3_x86_128", "minishard_bits": self.minishard_bits,
            "shard_bits": self.shard_bits, "minishard_index_encoding": "gzip",
            "data_encoding": "raw",
        }

    def file_name(self, shard: int) -> str:
        return f"{shard:0{-(-self.shard_bits // 4)}x}.shard" if self.shard_bits else "0.shard"

    def shard(self, keys: np.ndarray) -> np.ndarray:
        """Return number of the file of every key, (n,) int64."""
        hashed = murmur(keys) >> np.uint64(self.minishard_bits)
        return (hashed & np.uint64(self.n_shards - 1)).astype(np.int64)

    def minishard(self, keys: np.ndarray) -> np.ndarray:
        """Return number of the part of its file of every key, (n,) int64."""
        return (murmur(keys) & np.uint64((1 << self.minishard_bits) - 1)).astype(np.int64)

    def order(self, keys: np.ndarray) -> np.ndarray:
        """Return the indices that put the keys of one file in the order that `packed` needs."""
        return np.lexsort((keys, self.minishard(keys)))

    def packed(self, keys: np.ndarray, sizes: np.ndarray) -> tuple[bytes, bytes]:
        """Return what precedes and follows the values, joined in their order, in the file of a shard.

        Parameters
        ----------
        keys : (n,) uint64 array
            All of one shard, each once, in the order of `order`.
        sizes : (n,) int64 array
            Bytes of their values.
        """
        ends = np.cumsum(sizes)
        at, index, tail = int(ends[-1]) if len(ends) else 0, [], []
        for rows in self._minishards(keys):
            part = _minishard_index(keys[rows], sizes[rows], ends[rows])
            index.append((at, at + len(part)))
            tail.append(part)
            at += len(part)
        return np.array(index, "<u8").tobytes(), b"".join(tail)

    def _minishards(self, keys: np.ndarray) -> Iterator[slice]:
        """Return the rows of every minishard of a shard."""
        numbers = np.arange((1 << self.minishard_bits) + 1)
        bounds = np.searchsorted(self.minishard(keys), numbers)
        return (slice(int(a), int(b)) for a, b in pairwise(bounds))


def _minishard_index(keys: np.ndarray, sizes: np.ndarray, ends: np.ndarray) -> bytes:
    """Return keys, gaps before the values and sizes, packed; gaps are 0 within a minishard."""
    if not len(keys):
        return b""
    gaps = np.zeros(len(keys), np.uint64)
    gaps[0] = ends[0] - sizes[0]
    rows = np.stack([np.diff(keys, prepend=np.uint64(0)), gaps, sizes.astype(np.uint64)])
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: as gzip, without a date
    return packer.compress(rows.astype("<u8").tobytes()) + packer.flush()


def murmur(keys: np.ndarray) -> np.ndarray:
    """Return the lower 64 bits of MurmurHash3_x86_128 with seed 0 of every key, (n,) uint64.

    Parameters
    ----------
    keys : (n,) uint64 array
        Hashed as 8 bytes, the lowest first.

    References
    ----------
    Austin Appleby, MurmurHash3 (public domain). Keys of 8 bytes are all tail: two of the four
    lanes get a word each.
    """
    keys = np.asarray(keys, np.uint64)
    low, high = keys.astype(np.uint32), (keys >> np.uint64(32)).astype(np.uint32)
    h1 = _rotated(low * np.uint32(_C1), 15) * np.uint32(_C2) ^ np.uint32(8)
    h2 = _rotated(high * np.uint32(_C2), 16) * np.uint32(_C3) ^ np.uint32(8)
    h3 = h4 = np.full_like(h1, 8)
    h1 = h1 + h2 + h3 + h4
    h1, h2, h3 = _mixed(h1), _mixed(h2 + h1), _mixed(h3 + h1)
    h4 = h3  # both lanes got the same so far
    h1 = h1 + h2 + h3 + h4
    return (h2 + h1).astype(np.uint64) << np.uint64(32) | h1


def _rotated(x: np.ndarray, bits: int) -> np.ndarray:
    return x << np.uint32(bits) | x >> np.uint32(32 - bits)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    x = (x ^ x >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return x ^ x >> np.uint32(16)

"""The blocks of a run as sets: a mask that changed may hide blocks that were done, or that failed."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore


@dataclass(frozen=True)
class BlockSets:
    """Which blocks are how; every block is in one set, or missing.

    Attributes
    ----------
    done, failed, quarantined, masked : (z, y, x) bool array
        Blocks of the grid. What the mask leaves out is masked, whatever its record says.
    hidden : (z, y, x) bool array
        Masked blocks that were done under another mask; their outputs are still there.
    n_hidden : int
        Masked blocks that have a record, done or not.
    """

    done: np.ndarray
    failed: np.ndarray
    quarantined: np.ndarray
    masked: np.ndarray
    hidden: np.ndarray
    n_hidden: int

    @classmethod
    def of(cls, store: RunStore, masked: np.ndarray) -> Self:
        """Read what the database has of a run with this mask."""
        done, *others = (store.mask(masked.shape, state) for state in (DONE, FAILED, QUARANTINED))
        failed, quarantined = (blocks & ~masked for blocks in others)
        n_hidden = sum(int((blocks & masked).sum()) for blocks in (done, *others))
        return cls(done & ~masked, failed, quarantined, masked, done & masked, n_hidden)

    @property
    def missing(self) -> np.ndarray:
        """Blocks that the mask leaves and that are not done."""
        return ~(self.done | self.masked)

    def counts(self) -> dict[str, int]:
        """Return the number of blocks per state, as `RunStore.counts`, with ``masked``."""
        return {
            DONE: int(self.done.sum()), FAILED: int(self.failed.sum()),
            QUARANTINED: int(self.quarantined.sum()), "masked": int(self.masked.sum()),
        }


def counts_of(store: RunStore, run: dict) -> dict[str, int]:
    """Return the number of blocks per state of a run's document: done, failed, quarantined, masked.

    Fast where the mask hides no block that has a record, which is nearly always.
    """
    if run.get("n_hidden") and (masked := masked_of(run)) is not None:
        return BlockSets.of(store, masked).counts()
    return store.counts() | {"masked": run["n_masked"]}


def mask_document(sets: BlockSets) -> dict:
    """Return fields of a run's document that say which blocks its mask leaves out."""
    bits = zlib.compress(np.packbits(sets.masked).tobytes(), 1)
    return {
        "n_masked": int(sets.masked.sum()), "n_hidden": sets.n_hidden,
        "masked": base64.b64encode(bits).decode(),
    }


def masked_of(run: dict) -> np.ndarray | None:
    """Return which blocks the mask of a run leaves out, bool (z, y, x); None for older versions."""
    if run.get("masked") is None:
        return None
    bits = np.frombuffer(zlib.decompress(base64.b64decode(run["masked"])), np.uint8)
    shape = tuple(run["grid"]["shape"])
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)

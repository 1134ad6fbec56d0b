"""Tables from fragments to segments, of which a block loads only what lies in its box."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import fastremap
import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import BlockGrid, Box, Frame, Triple
from em_blocks.outputs import TableOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.volumes.stores.tables import BlockTables, Columns


class LookUpTable:
    """Segment of every fragment.

    The table is cut like a block grid, as its header says: a fragment is in the piece where its
    voxels are.

    Parameters
    ----------
    path : str
        Folder of the tables, columns ``fragment`` and ``segment``, sorted by fragment.
    frame : Frame
    shape : (3,) int
        Of the volume of fragments.
    """

    def __init__(self, path: str, frame: Frame, shape: Triple):
        self.path, self._frame, self._shape = path, frame, shape
        self._tables = BlockTables(path)
        self._loaded: dict[str, Columns] = {}

    @cached_property
    def header(self) -> dict:
        """Read the header of the table; ConfigError if there is none."""
        return lut_header(self.path)

    @cached_property
    def pieces(self) -> BlockGrid:
        return BlockGrid(self._frame, self._shape, tuple(self.header["block_shape"]))

    def read(self, key: str) -> Columns:
        """The piece ``zi/yi/xi``."""
        return self._tables.read(key, ["fragment", "segment"])

    def load(self, box: Box) -> list[Columns]:
        """The pieces that list the fragments in a box; those of the box before are kept."""
        keys = [piece.key for piece in self.pieces.within(box)]
        for key in self._loaded.keys() - set(keys):
            del self._loaded[key]  # neighbouring blocks mostly need the same piece
        for key in keys:
            if key not in self._loaded:
                self._loaded[key] = self.read(key)
        return [self._loaded[key] for key in keys]


def lut_header(path: str) -> dict:
    """Header of the look-up table in the folder `path`; ConfigError if there is none."""
    header = TableOutput("lut", path).header()
    if header is None:
        raise ConfigError(
            f"There is no look-up table in {path}. It is made by `em-blocks segment`; check the path "
            "and the threshold."
        )
    return header


def check_made_for(lut: str, labels: str | VolumeInput) -> None:
    """Raise `ConfigError` unless the look-up table was made for these labels."""
    made_for, found = lut_header(lut).get("fragments"), fingerprint_of(labels)
    if made_for != found:
        raise ConfigError(
            f"The look-up table {lut} was made for fragments of another run ({made_for}) than "
            f"{labels} ({found}): ids would be replaced by those of other objects. Find segments for "
            "these fragments, or choose their own table."
        )


def relabelled(ids: np.ndarray, tables: list[Columns], name: str) -> np.ndarray:
    """`ids` replaced by look-up tables; uint64. 0 stays 0.

    Raises
    ------
    VolumeError
        If an id is in no table.
    """
    present, dense = fastremap.unique(ids, return_inverse=True)
    segments, known = found_in(tables, present.astype(np.int64))
    missing = ~known & (present != 0)
    if missing.any():
        raise VolumeError(
            f"{int(missing.sum())} ids, such as {int(present[missing][0])}, are not in the look-up "
            f"table {name}: it was made for other labels, or these have changed since. Find the "
            "segments again."
        )
    return segments.astype(np.uint64)[dense].reshape(ids.shape)


def found_in(tables: list[Columns], fragments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments of fragments, and which of them are in a table.

    Parameters
    ----------
    fragments : (n,) int64 array

    Returns
    -------
    segments : (n,) int64 array
        0 where there is none.
    known : (n,) bool array
    """
    segments, known = np.zeros(len(fragments), np.int64), np.zeros(len(fragments), bool)
    for table in tables:
        if len(table["fragment"]):
            place = np.searchsorted(table["fragment"], fragments)
            found = table["fragment"].take(place, mode="clip") == fragments
            segments[found] = table["segment"][place[found]]
            known |= found
    return segments, known


def changes(old: LookUpTable | None, new: LookUpTable) -> Iterator[Columns]:
    """The fragments whose segment differs, with the new one, from piece to piece of `new`.

    Parameters
    ----------
    old : LookUpTable or None
        None for no segments at all.

    Raises
    ------
    VolumeError
        If the new table lacks a fragment of the old one.
    """
    for piece in new.pieces.blocks():
        table = new.read(piece.key)
        before = [] if old is None else old.load(piece.write_box)
        if old is not None:
            _check_keeps(old, new, before, piece.write_box)
        segments, known = found_in(before, table["fragment"])
        changed = ~known | (segments != table["segment"])
        yield {name: table[name][changed] for name in ("fragment", "segment")}


def _check_keeps(old: LookUpTable, new: LookUpTable, before: list[Columns], box: Box) -> None:
    """Fragments of the old pieces in a box are in the new pieces of the same places."""
    boxes = [piece.write_box for piece in old.pieces.within(box)]
    around = Box.between(
        np.min([b.offset for b in boxes], axis=0), np.max([b.end for b in boxes], axis=0)
    )
    tables = new.load(around)
    for table in before:
        _, known = found_in(tables, table["fragment"])
        if not known.all():
            raise VolumeError(
                f"{int((~known).sum())} fragments of {old.path}, such as "
                f"{table['fragment'][~known][0]}, are not in {new.path}, so nothing says their "
                "segments. Nothing was changed; choose a table for all fragments."
            )

"""The synapses of a run on their way out: table by table, through an ordered list of filters."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from em_blocks.kernels.neuroglancer.shards import murmur
from em_blocks.kernels.synapses.filters import (
    Duplicates,
    Filter,
    Length,
    Listed,
    Objects,
    Score,
    SelfLinks,
    object_ids,
)
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.synapse_files import parquet

# Rows in which duplicates are looked for at once: about 2 GB of memory.
_ROWS_AT_ONCE = 4_000_000

NAMES = {Score: "score", Listed: "ids", SelfLinks: "self", Length: "length", Duplicates: "duplicates"}


@dataclass
class FilterCount:
    """A filter and how many synapses it was given and removed."""

    filter: Filter
    before: int = 0
    removed: int = 0

    @property
    def after(self) -> int:
        return self.before - self.removed

    def document(self) -> dict:
        """As JSON: the filter's name and parameters, and the counts."""
        parameters = {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self.filter).items()
        }
        return {"filter": NAMES[type(self.filter)], **parameters, "before": self.before,
                "removed": self.removed, "after": self.after}


def filtered(
    tables: Iterable[Synapses], filters: Sequence[Filter], *, n_rows: int, folder: Path
) -> tuple[Iterator[Synapses], list[FilterCount]]:
    """Apply filters to a long table that comes in parts.

    Duplicates are found only among all synapses of a pair of objects. So for that filter up to 4
    million rows are put together; more are sorted by their pairs into files first, and come out
    in the order of these files.

    Parameters
    ----------
    n_rows : int
        How many there are, at most.
    folder : Path
        Where a temporary folder may be made.

    Returns
    -------
    tables : iterator of Synapses
        What is left.
    counts : list of FilterCount
        One per filter, in their order; complete when `tables` is exhausted.
    """
    counts = [FilterCount(filter) for filter in filters]
    tables = iter(tables)
    for count in counts:
        if isinstance(count.filter, Duplicates):
            n_parts = -(-n_rows // _ROWS_AT_ONCE)
            tables = _with_whole_pairs(tables, count.filter.objects, n_parts, folder)
        tables = _counted(tables, count)
    return tables, counts


def _counted(tables: Iterable[Synapses], count: FilterCount) -> Iterator[Synapses]:
    for table in tables:
        kept, removed = count.filter(table)
        count.before += len(table)
        count.removed += len(removed)
        yield kept


def _with_whole_pairs(
    tables: Iterable[Synapses], objects: Objects, n_parts: int, folder: Path
) -> Iterator[Synapses]:
    """The same rows in tables that each hold all synapses of some pairs of objects."""
    if n_parts <= 1:
        yield Synapses.concatenate(list(tables))
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".sorting-") as temporary:
        paths = [Path(temporary, f"{number}.parquet") for number in range(n_parts)]
        _sort_into(paths, tables, objects)
        for path in paths:
            yield parquet.read(path).sorted()
            path.unlink()


def _sort_into(paths: list[Path], tables: Iterable[Synapses], objects: Objects) -> None:
    """Write every row to the file of its pair of objects."""
    with ExitStack() as stack:
        files = [stack.enter_context(parquet.opened(path)) for path in paths]
        for table in tables:
            pairs = object_ids(table, objects).view(np.uint64)
            part = murmur(pairs[:, 0] ^ murmur(pairs[:, 1])) % np.uint64(len(paths))
            for number, write in enumerate(files):
                write(table.select(part == number))

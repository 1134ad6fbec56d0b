"""Layers of synapses for neuroglancer: lines in the precomputed annotation format.

Lines are looked up by their id, by the segment at either site (select a neuron, see its synapses)
and by place, at several densities. Every lookup is a folder of shard files, so that a layer of
any size is a few hundred files; the server that offers them must understand byte ranges.

Tables are written to a file of plain rows first. Everything else is made from that in parts, so
memory does not grow with their number; the disk holds three times the final size meanwhile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.errors import EmBlocksError, VolumeError
from em_blocks.kernels.neuroglancer.annotation_lines import (
    PROPERTIES,
    RELATIONSHIPS,
    ROW,
    Grid,
    chance,
    lists,
    rows_of,
    single_records,
)
from em_blocks.kernels.neuroglancer.shards import Sharding
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.stores.whole_files import folder_written_whole

TYPE = "neuroglancer_annotations_v1"
_OURS = "em_blocks"  # a key of ``info`` that viewers do not look at
DIMENSIONS = {axis: [1e-9, "m"] for axis in "xyz"}
_DESCRIPTIONS = {
    "score": "Score of the detection", "cleft_score": "Score of the synaptic cleft",
    "size": "Voxels of the detected component",
}

# Lines that a cell of the spatial index should hold at most: what a viewer loads at once.
_LIMIT = 5000
# Cells are not made smaller: a cubic micrometre of neuropil holds some ten synapses.
_SMALLEST_CELL_NM = 1000.0
_ROWS_AT_ONCE = 1 << 19
_ROWS_PER_SHARD = 1 << 20
_ENTRY = np.dtype([("key", "<u8"), ("row", ROW)])

Keyed = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Numbers of rows and a key for each; a row may have none, or several."""


@dataclass(frozen=True)
class _Level:
    """A level of the spatial index, and which share of all lines comes before and up to it."""

    grid: Grid
    begin: float
    end: float

    @property
    def share(self) -> float:
        return self.end - self.begin

    def keyed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = chance(rows["id"])
        own = np.flatnonzero((drawn >= self.begin) & (drawn < self.end))
        numbers, codes = self.grid.crossed(rows[own])
        return own[numbers], codes


@dataclass(frozen=True)
class Layer:
    """A layer, as its ``info`` file describes it."""

    info: dict

    @property
    def largest_score(self) -> float | None:
        """None if no line has a score, or others wrote the layer."""
        return self.info.get(_OURS, {}).get("largest_score")


def write_annotations(folder: Path | str, tables: Iterable[Synapses]) -> Layer:
    """Write lines from the postsynaptic to the presynaptic sites of all tables.

    Parameters
    ----------
    folder : path
        Appears in one piece, or not at all; an earlier layer there is replaced.

    Raises
    ------
    VolumeError
        If the folder holds something else, or cannot be written.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    with _explained(folder), folder_written_whole(folder) as new:
        spool = new / "rows"
        with open(spool, "wb") as file:
            for table in tables:
                file.write(rows_of(table).tobytes())
        rows = _Rows(spool)
        ours = {"lines": rows.n, "largest_score": rows.largest("score")}
        info = _write_indices(new, rows) | {_OURS: ours}
        (new / "info").write_text(json.dumps(info, indent=2) + "\n")
        spool.unlink()
    return Layer(info)


def read_layer(folder: Path | str) -> Layer:
    """Return the layer of a folder.

    Raises
    ------
    VolumeError
        If there is none.
    """
    try:
        info = json.loads((Path(folder) / "info").read_text())
        if info["@type"] == TYPE:
            return Layer(info)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise VolumeError(f"{folder} is no layer of annotations: it has no 'info' file that says so.")


def viewer_state(written: Layer, *, url: str, segments_url: str | None = None) -> dict:
    """Return the neuroglancer state that shows a layer, as JSON.

    Parameters
    ----------
    url : str
        Where a server offers the folder.
    segments_url : str, optional
        Source of the segmentation: synapses are shown of the neurons that are selected there.
    """
    middle = np.add(written.info["lower_bound"], written.info["upper_bound"]) / 2
    # A slider from 0 to a round number above all scores; without scores, to 1.
    most = f"{float(f'{1.05 * (written.largest_score or 0):.1e}') or 1.0:g}"
    layer: dict = {
        "type": "annotation", "name": "synapses", "source": f"precomputed://{url.rstrip('/')}",
        "tab": "rendering", "shader": _SHADER.replace("MOST", most),
    }
    layers = [layer]
    if segments_url:
        layer["linkedSegmentationLayer"] = dict.fromkeys(RELATIONSHIPS, "segments")
        layer["filterBySegmentation"] = list(RELATIONSHIPS)
        layers.insert(0, {"type": "segmentation", "name": "segments", "source": segments_url})
    return {"dimensions": DIMENSIONS, "position": middle.tolist(), "layers": layers,
            "selectedLayer": {"layer": "synapses", "visible": True}, "layout": "4panel"}


# Postsynaptic ends are blue, presynaptic ones orange: colours that colour-blind readers can tell apart.
_SHADER = """#uicontrol float least_score slider(min=0, max=MOST, default=0)
void main() {
  if (prop_score() < least_score) discard;
  setLineColor(vec3(1.0, 1.0, 1.0));
  setEndpointMarkerColor(vec3(0.0, 0.45, 0.7), vec3(0.84, 0.37, 0.0));
  setEndpointMarkerSize(5.0, 5.0);
}
"""


class _Rows:
    """The rows of a file, in parts."""

    def __init__(self, path: Path):
        self.n = path.stat().st_size // ROW.itemsize
        self._path = path

    def __iter__(self) -> Iterator[np.ndarray]:
        with open(self._path, "rb") as file:
            while len(rows := np.fromfile(file, ROW, _ROWS_AT_ONCE)):
                yield rows

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return corners (x, y, z) of a box of whole nm around all lines."""
        lower, upper = np.full(3, np.inf), np.full(3, -np.inf)
        for rows in self:
            for side in ("pre", "post"):
                lower = np.minimum(lower, rows[side].min(axis=0))
                upper = np.maximum(upper, rows[side].max(axis=0))
        if not self.n:
            return np.zeros(3), np.ones(3)
        lower, upper = np.floor(lower), np.ceil(upper)
        return lower, np.maximum(upper, lower + 1)


    def largest(self, name: str) -> float | None:
        """Return largest value of a column that is not nan; None if there is none."""
        found = np.fmax.reduce([np.fmax.reduce(rows[name]) for rows in self], initial=np.nan)
        return None if np.isnan(found) else float(found)


def _write_indices(folder: Path, rows: _Rows) -> dict:
    """Write all lookups of `rows`; returns what ``info`` says of them."""
    lower, upper = rows.bounds()
    levels = _levels(rows, Grid.whole(lower, upper))
    return {
        "@type": TYPE,
        "dimensions": DIMENSIONS,
        "lower_bound": lower.tolist(),
        "upper_bound": upper.tolist(),
        "annotation_type": "line",
        "properties": [
            {"id": name, "type": kind, "description": _DESCRIPTIONS[name]}
            for name, kind in PROPERTIES.items()
        ],
        "relationships": [
            {"id": name, **_write_index(folder / name, rows, rows.n, _by(name), _grouped)}
            for name in RELATIONSHIPS
        ],
        "by_id": _write_index(folder / "by_id", rows, rows.n, _by("id"), _single),
        "spatial": [
            {"grid_shape": level.grid.shape.tolist(), "chunk_size": level.grid.cell.tolist(),
             # What there really is: viewers thin out lines by the density that this promises.
             "limit": max(1, _fullest(rows, level.keyed)),
             **_write_index(folder / f"spatial{number}", rows, level.share * rows.n, level.keyed,
                            _grouped)}
            for number, level in enumerate(levels)
        ],
    }


def _by(name: str) -> Keyed:
    """Return the rows by a column; those of segment 0 have none."""
    def keyed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.arange(len(rows)) if name == "id" else np.flatnonzero(rows[name])
        return numbers, rows[name][numbers]

    return keyed


def _levels(rows: _Rows, grid: Grid) -> list[_Level]:
    """Return levels such that a cell holds about `_LIMIT` lines: of every level a random share of all.

    The last one holds all lines that are left. Which share a line is of follows from its id alone,
    so that a level is found without those before it.
    """
    levels: list[_Level] = []
    begin = 0.0
    while True:
        left = 1 - begin
        share = min(1.0, _LIMIT / max(1.0, left * _fullest(rows, grid.crossed)))
        finer = grid.finer()
        if share == 1 or finer.cell.max() < _SMALLEST_CELL_NM:
            return [*levels, _Level(grid, begin, 1.0)]
        levels.append(_Level(grid, begin, begin + share * left))
        grid, begin = finer, levels[-1].end


def _fullest(rows: _Rows, keyed: Keyed) -> int:
    """Return most lines that one key has, for example the cell that they pass through."""
    codes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for part in rows:
        new, found = np.unique(keyed(part)[1], return_counts=True)
        codes, place = np.unique(np.concatenate([codes, new]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, found])).astype(np.int64)
    return int(counts.max(initial=0))


# -- one lookup ----------------------------------------------------------------------------


def _write_index(folder: Path, rows: _Rows, about: float, keyed: Keyed, encode: Callable) -> dict:
    """Write a lookup of about `about` rows; returns its place and sharding for ``info``."""
    sharding = Sharding.of(math.ceil(about), math.ceil(about / _ROWS_PER_SHARD))
    folder.mkdir()
    for part in rows:
        numbers, keys = keyed(part)
        entries = np.empty(len(keys), _ENTRY)
        entries["key"], entries["row"] = keys, part.take(numbers)
        _sort_into_files(folder, sharding, entries)
    for file in sorted(folder.glob("*.rows")):
        _pack(file, sharding, encode)
    return {"key": folder.name, "sharding": sharding.document()}


def _sort_into_files(folder: Path, sharding: Sharding, entries: np.ndarray) -> None:
    """Append entries to the file of rows of their shard."""
    shard = sharding.shard(entries["key"])
    order = np.argsort(shard, kind="stable")
    bounds = np.searchsorted(shard[order], np.arange(sharding.n_shards + 1))
    for number in np.flatnonzero(np.diff(bounds)):
        with open(folder / f"{sharding.file_name(int(number))}.rows", "ab") as file:
            file.write(entries.take(order[bounds[number] : bounds[number + 1]]).tobytes())


def _pack(file: Path, sharding: Sharding, encode: Callable) -> None:
    """Turn the rows of a shard into the shard."""
    entries = np.fromfile(file, _ENTRY)
    # In a random order within a key: a viewer that shows fewer takes the first ones.
    order = np.argsort(chance(entries["row"]["id"]))
    order = order[sharding.order(entries["key"][order])]  # stable
    entries = entries.take(order)  # indexing by [order] takes 20 times longer
    keys, words, sizes = encode(entries["key"], entries["row"])
    head, tail = sharding.packed(keys, sizes)
    with open(file.with_suffix(""), "wb") as shard:
        shard.writelines([head, words.tobytes(), tail])
    file.unlink()


def _single(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    again = np.flatnonzero(keys[1:] == keys[:-1])
    if len(again):
        raise VolumeError(
            f"The id {keys[again[0]]} stands in two tables. A viewer asks for lines by their id, so it "
            "must be unique."
        )
    return keys, *single_records(rows)


def _grouped(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
    return keys[starts], *lists(rows, starts)


# -- folders -------------------------------------------------------------------------------


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except EmBlocksError:
        raise
    except OSError as error:
        raise VolumeError(
            f"The annotations {folder} cannot be written: {error.strerror or error}. An earlier layer "
            "there is as it was."
        ) from error


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_layer(folder)
    except VolumeError as error:
        raise VolumeError(
            f"{folder} exists and is no layer of annotations. It would be replaced as a whole, so "
            "nothing was done: name a new folder, or remove it first."
        ) from error

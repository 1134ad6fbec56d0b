"""Files of synaptic partners, by the end of their name.

A format is a module of this package with two functions, imported when it is used::

    read(path: Path, **options) -> Synapses
    write(path: Path, synapses: Synapses, **options) -> None

`read` raises `SynapseFileError` and names the row that is wrong (see `checks`); `write` simply
writes: that nothing half-written is left behind is taken care of here. A format that need not know
all rows at once has a third one, ``write_tables(path: Path, tables: Iterable[Synapses]) -> None``.
A format whose positions are counted in voxels (`IN_VOXELS`) is also told their size and offset.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from em_blocks.errors import EmBlocksError, SynapseFileError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.stores.whole_files import written_whole

# Compared from the first to the last; endings of whole names are possible.
FORMATS = {
    "_pre.csv": "voxel_pairs",
    "_post.csv": "voxel_pairs",
    ".csv": "pairs",
    ".json": "fafb",
    ".hdf": "cremi",
    ".h5": "cremi",
    ".hdf5": "cremi",
    ".parquet": "parquet",
    ".sqlite": "sqlite",
    ".db": "sqlite",
    ".npz": "npz",
}
"""Endings of names, and the module of this package that reads and writes such files."""

IN_VOXELS = ("cremi", "voxel_pairs")
"""Formats of which a position means nothing without the size of voxels."""


def read_synapses(
    path: Path | str, *, voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> Synapses:
    """Return the partners of a file, nm (z, y, x) of the world.

    Parameters
    ----------
    voxel_size, offset : (3,) float
        nm (z, y, x) of the voxels, and the corner of the first one, that files `IN_VOXELS` mean; of
        CREMI files only if they do not say it. All other formats hold positions in the world.

    Raises
    ------
    SynapseFileError
        If the format is unknown, the file cannot be read, or a row is malformed.
    """
    path = Path(path)
    module = _module(path)
    if path.is_dir():
        raise SynapseFileError(f"{path} is a folder, but a file of synaptic partners is needed.")
    in_voxels = {"voxel_size": voxel_size, "offset": offset}
    with _explained(path, "read"):
        return module.read(path, **(in_voxels if format_of(path) in IN_VOXELS else {}))


def write_synapses(
    path: Path | str, synapses: Synapses | Iterable[Synapses], *,
    voxel_size: Sequence[float] | None = None, offset: Sequence[float] = (0.0, 0.0, 0.0), **options,
) -> None:
    """Write partners; the file appears in one piece, or not at all.

    Parameters
    ----------
    synapses : Synapses, or iterable of Synapses
        One table, or several that are written one after the other. CREMI, npz and voxel pairs hold
        them all in memory, the other formats one at a time.
    voxel_size, offset : (3,) float
        As of `read_synapses`.
    options
        What else a format takes, such as the `volumes` of `cremi`.

    Raises
    ------
    SynapseFileError
        If the format is unknown, or the file cannot be written.
    """
    path = Path(path)
    module = _module(path)
    if format_of(path) in IN_VOXELS:
        options |= {"voxel_size": voxel_size, "offset": offset}
    with _explained(path, "written"), written_whole(path) as file:
        _write(module, file, synapses, options)


def _write(
    module: ModuleType, file: Path, synapses: Synapses | Iterable[Synapses], options: dict
) -> None:
    if isinstance(synapses, Synapses):
        module.write(file, synapses, **options)
    elif hasattr(module, "write_tables"):
        module.write_tables(file, synapses, **options)
    else:
        module.write(file, Synapses.concatenate(list(synapses)), **options)


def format_of(path: Path | str) -> str:
    """Return the module that reads and writes files of this name.

    Raises
    ------
    SynapseFileError
        If the name has none of the known endings.
    """
    for ending, name in FORMATS.items():
        if Path(path).name.lower().endswith(ending):
            return name
    raise SynapseFileError(
        f"{path} has no known format: its name should end in one of "
        f"{', '.join(sorted(FORMATS))}. Rename it to what it is."
    )


def _module(path: Path) -> ModuleType:
    return importlib.import_module(f"{__name__}.{format_of(path)}")


@contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except EmBlocksError:
        raise
    except OSError as error:
        reason = str(error.strerror or error)
        if error.filename not in (None, path, str(path)):  # a second file that belongs to it
            reason += f" ({error.filename})"
        raise SynapseFileError(
            f"The synaptic partners in {path} cannot be {what}: {reason}."
        ) from error

"""HDF5 datasets as sources: CREMI layout, and supervoxels with a table of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import fastremap
import h5py
import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.extras import needed_extras
from em_blocks.geometry import Box
from em_blocks.volumes.imports.arrays import (
    arrange,
    header_of,
    no_volume,
    number_type,
    read_box,
    unreadable,
)
from em_blocks.volumes.imports.digest import signed_values
from em_blocks.volumes.imports.sources import ReadBox, Source, SourceHeader, StoredAxes
from em_blocks.volumes.metadata import Stored
from em_blocks.volumes.metadata.arrangement import Arrangement
from em_blocks.volumes.metadata.claims import SPACE, Axes


class Hdf5Dataset(Source):
    """A dataset (z, y, x) or (c, z, y, x).

    Its attributes ``resolution`` and ``offset`` (nm, zyx) are as in CREMI.
    """

    type: Literal["hdf5"]
    path: LocalPath = Field(description="HDF5 file.")
    dataset: str = Field(description="Name in the file, e.g. volumes/raw.")
    axes: StoredAxes = None

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape, dtype, and position if the file or the config tells; raises an `EmBlocksError`."""
        with _open_file(self.path) as file:
            return _header(_dataset(file, self.dataset), self.axes, told)

    def check(self) -> None:
        """Raise an `EmBlocksError` unless the dataset is a volume of numbers."""
        with _open_file(self.path) as file:
            _arrangement(_dataset(file, self.dataset), self.axes)

    def identity(self) -> dict:
        """Return a checksum of a sample of the values, wherever the file lies."""
        return signed_values(self)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the file; yield a function that reads a box."""
        with _open_file(self.path) as file:
            yield _reader(_dataset(file, self.dataset), self.axes)


class Hdf5Transforms(Source):
    """Supervoxel ids in one dataset, and a table (n, 2) that maps each to its body.

    Ids of bodies are stored. The whole table is held in memory.
    """

    type: Literal["hdf5_transforms"]
    path: LocalPath = Field(description="HDF5 file.")
    stack: str = Field("stack", description="Dataset of supervoxel ids.")
    transforms: str = Field("transforms", description="Dataset of rows (supervoxel, body).")
    axes: StoredAxes = None

    def header(self, told: VolumeInput | None = None) -> SourceHeader:
        """Read shape and position of the supervoxels, dtype of the bodies; raises an `EmBlocksError`."""
        with _open_file(self.path) as file:
            dtype = _dataset(file, self.transforms).dtype
            return _header(_dataset(file, self.stack), self.axes, told)._replace(dtype=dtype)

    def check(self) -> None:
        """Raise `ConfigError` unless there are integer ids and a table with one body for each."""
        with _open_file(self.path) as file:
            stack, table = _dataset(file, self.stack), _dataset(file, self.transforms)
            if _arrangement(stack, self.axes).kept != SPACE:
                raise no_volume(_name(stack), stack.dtype, stack.shape)
            if table.ndim != 2 or table.shape[1] != 2:
                raise ConfigError(
                    f"The dataset {self.transforms} of {self.path} has the shape {table.shape}, but a "
                    "table (n, 2) of supervoxel and body is needed. Name the right dataset in the "
                    "key 'transforms'."
                )
            if {stack.dtype.kind, table.dtype.kind} - {"u", "i"}:
                raise ConfigError(
                    f"The ids in {self.path} are {stack.dtype} ({self.stack}) and {table.dtype} "
                    f"({self.transforms}), but ids are integers. Name the right datasets."
                )
            _mapping(table)

    def identity(self) -> dict:
        """Return a checksum of a sample of the values, wherever the file lies."""
        return signed_values(self)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the file and load the table; yield a function that reads bodies of a box."""
        with _open_file(self.path) as file:
            stack, table = _dataset(file, self.stack), _dataset(file, self.transforms)
            supervoxels, bodies = _mapping(table)
            read = _reader(stack, self.axes)
            yield lambda box: apply_mapping(read(box), supervoxels, bodies)


def apply_mapping(
    values: np.ndarray, supervoxels: np.ndarray, bodies: np.ndarray
) -> np.ndarray:
    """Replace supervoxel ids by the ids of their bodies.

    Parameters
    ----------
    values : (z, y, x) integer array
    supervoxels : (n,) integer array
        Sorted, each once. A missing 0 (background) stands for itself.
    bodies : (n,) integer array

    Returns
    -------
    (z, y, x) array, dtype of `bodies`

    Raises
    ------
    VolumeError
        If an id other than 0 has no body.
    """
    ids, inverse = fastremap.unique(values, return_inverse=True)
    ids = ids.astype(supervoxels.dtype)
    row = np.searchsorted(supervoxels, ids).clip(max=len(supervoxels) - 1)
    known = supervoxels[row] == ids
    if lost := ids[~known & (ids != 0)].tolist():
        raise VolumeError(
            f"{len(lost)} supervoxels have no body in the table of transforms, for example "
            f"{lost[:5]}. Stored as they are, they could be mistaken for other bodies; complete the "
            "table, or ingest the supervoxels themselves with the source type 'hdf5'."
        )
    return np.where(known, bodies[row], 0).astype(bodies.dtype)[inverse].reshape(values.shape)


def _mapping(table: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the table as sorted supervoxels and their bodies; raises `ConfigError`."""
    rows = table[:]
    if not len(rows):
        raise ConfigError(f"The table {table.name} of {table.file.filename} is empty.")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    repeated = np.append(False, (rows[1:] == rows[:-1]).all(axis=1))
    supervoxels, bodies = np.ascontiguousarray(rows[~repeated].T)
    if twice := supervoxels[1:][supervoxels[1:] == supervoxels[:-1]].tolist():
        raise ConfigError(
            f"The table {table.name} of {table.file.filename} gives {len(twice)} supervoxels more "
            f"than one body, for example {twice[:5]}. Correct the table, so that each has one."
        )
    return supervoxels, bodies


@contextmanager
def _open_file(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(
            f"The HDF5 file {path} cannot be opened: {error}. Check the path, and that the file "
            "was copied completely."
        ) from error
    with file:
        yield file


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    found = file.get(name)
    if isinstance(found, h5py.Dataset):
        return found
    names = []
    file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None)
    raise ConfigError(
        f"There is no dataset {name!r} in {file.filename}. It holds: {', '.join(names) or 'none'}."
    )


def _header(
    dataset: h5py.Dataset, axes: Axes | None, told: VolumeInput | None = None
) -> SourceHeader:
    return header_of(_stored(dataset), dataset.dtype, axes, told, dataset.chunks)


def _arrangement(dataset: h5py.Dataset, axes: Axes | None) -> Arrangement:
    """Return the arrangement of a dataset; raises an `EmBlocksError` if it is no volume of numbers."""
    number_type(dataset.dtype, _name(dataset), dataset.shape)
    _find_filters(dataset)
    return arrange(_stored(dataset), axes)


def _find_filters(dataset: h5py.Dataset) -> None:
    """Load the filters that a dataset is compressed with; raises `ConfigError` where one is missing."""
    created = dataset.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, _, _, name = created.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with needed_extras():
                import hdf5plugin  # noqa: F401  # registers its filters
        if not h5py.h5z.filter_avail(code):
            raise ConfigError(
                f"{_name(dataset)} is compressed with the HDF5 filter {code} ({name.decode()!r}), which "
                "is not installed here, so its values cannot be read. Install its plugin (and set "
                "HDF5_PLUGIN_PATH), or repack the file with gzip: h5repack -f GZIP=4 IN OUT."
            )


def _stored(dataset: h5py.Dataset) -> Stored:
    return Stored(
        _name(dataset), dataset.shape, {name: _plain(value) for name, value in dataset.attrs.items()},
        names=[dimension.label for dimension in dataset.dims],
    )


def _name(dataset: h5py.Dataset) -> str:
    return f"{dataset.file.filename}:{dataset.name.strip('/')}"


def _plain(value: object) -> object:
    """Return an attribute as JSON would have it."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.ravel().tolist()]
    return value.item() if isinstance(value, np.generic) else value


def _reader(dataset: h5py.Dataset, axes: Axes | None) -> ReadBox:
    dtype = number_type(dataset.dtype, _name(dataset), dataset.shape)
    return partial(_read, dataset, _arrangement(dataset, axes), dtype)


def _read(
    dataset: h5py.Dataset, arrangement: Arrangement, dtype: np.dtype, box: Box
) -> np.ndarray:
    try:
        return read_box(dataset, arrangement, dtype, box)
    except OSError as error:
        raise unreadable(f"{dataset.name} in {dataset.file.filename}", box, error) from error

"""HDF5 datasets as sources: CREMI layout, and supervoxels with a table of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import fastremap
import h5py
import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, StrictModel
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Nm3
from em_blocks.volumes.sources import ReadBox, SourceHeader


class Hdf5Dataset(StrictModel):
    """A three-dimensional dataset; attributes ``resolution`` and ``offset`` (nm, zyx) as in CREMI."""

    whole_sections: ClassVar[bool] = False

    type: Literal["hdf5"]
    path: LocalPath = Field(description="HDF5 file.")
    dataset: str = Field(description="Name in the file, e.g. volumes/raw.")

    def header(self) -> SourceHeader:
        """Shape, dtype, and position if the file tells; raises `ConfigError`."""
        with _open_file(self.path) as file:
            return _header(_dataset(file, self.dataset))

    def check(self) -> None:
        """Raise `ConfigError` unless the dataset is a volume of numbers."""
        self.header()

    def identity(self) -> dict:
        return _file_identity(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the file; yield a function that reads a box."""
        with _open_file(self.path) as file:
            dataset = _dataset(file, self.dataset)
            yield lambda box: _read(dataset, box)


class Hdf5Transforms(StrictModel):
    """Supervoxel ids in one dataset, and a table (n, 2) that maps each to its body.

    Ids of bodies are stored. The whole table is held in memory.
    """

    whole_sections: ClassVar[bool] = False

    type: Literal["hdf5_transforms"]
    path: LocalPath = Field(description="HDF5 file.")
    stack: str = Field("stack", description="Dataset of supervoxel ids.")
    transforms: str = Field("transforms", description="Dataset of rows (supervoxel, body).")

    def header(self) -> SourceHeader:
        """Shape and position of the supervoxels, dtype of the bodies; raises `ConfigError`."""
        with _open_file(self.path) as file:
            dtype = _dataset(file, self.transforms).dtype
            return _header(_dataset(file, self.stack))._replace(dtype=dtype)

    def check(self) -> None:
        """Raise `ConfigError` unless there are integer ids and a table with one body for each."""
        with _open_file(self.path) as file:
            stack, table = _dataset(file, self.stack), _dataset(file, self.transforms)
            _header(stack)
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
        return _file_identity(self.path)

    @contextmanager
    def open(self) -> Iterator[ReadBox]:
        """Open the file and load the table; yield a function that reads bodies of a box."""
        with _open_file(self.path) as file:
            stack, table = _dataset(file, self.stack), _dataset(file, self.transforms)
            supervoxels, bodies = _mapping(table)
            yield lambda box: apply_mapping(_read(stack, box), supervoxels, bodies)


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
            f"{lost[:5]}. Stored as they are, they could be taken for other bodies; complete the "
            "table, or ingest the supervoxels themselves with the source type 'hdf5'."
        )
    return np.where(known, bodies[row], 0).astype(bodies.dtype)[inverse].reshape(values.shape)


def _mapping(table: h5py.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The table as sorted supervoxels and their bodies; raises `ConfigError`."""
    rows = table[:]
    if not len(rows):
        raise ConfigError(f"The table {table.name} of {table.file.filename} is empty.")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    repeated = np.append(False, (rows[1:] == rows[:-1]).all(axis=1))
    supervoxels, bodies = np.ascontiguousarray(rows[~repeated].T)
    if twice := supervoxels[1:][supervoxels[1:] == supervoxels[:-1]].tolist():
        raise ConfigError(
            f"The table {table.name} of {table.file.filename} gives {len(twice)} supervoxels more "
            f"than one body, for example {twice[:5]}. Only one can be right; correct the table."
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


def _header(dataset: h5py.Dataset) -> SourceHeader:
    if dataset.ndim != 3 or dataset.dtype.kind not in "uif":
        raise ConfigError(
            f"The dataset {dataset.name} of {dataset.file.filename} has the shape {dataset.shape} "
            f"and dtype {dataset.dtype}, but a volume (z, y, x) of integers or floats is needed."
        )
    return SourceHeader(
        dataset.shape,
        dataset.dtype.newbyteorder("="),
        _position(dataset, "resolution"),
        _position(dataset, "offset"),
    )


def _position(dataset: h5py.Dataset, name: str) -> Nm3 | None:
    if name not in dataset.attrs:
        return None
    values = np.ravel(dataset.attrs[name])
    if values.shape != (3,) or values.dtype.kind not in "uif":
        raise ConfigError(
            f"The attribute {name!r} of {dataset.name} in {dataset.file.filename} is "
            f"{values.tolist()}, but three numbers in nm (z, y, x) are needed."
        )
    return tuple(float(v) for v in values)


def _read(dataset: h5py.Dataset, box: Box) -> np.ndarray:
    try:
        values = dataset[box.slices]
    except OSError as error:
        raise VolumeError(
            f"Voxels {box.offset} to {box.end} (zyx) of {dataset.name} in "
            f"{dataset.file.filename} cannot be read: {error}"
        ) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _file_identity(path: Path) -> dict:
    """Size and time of change: a digest of the contents would read everything twice."""
    try:
        stat = path.stat()
    except OSError as error:
        raise ConfigError(f"The HDF5 file {path} cannot be read: {error.strerror}.") from error
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}

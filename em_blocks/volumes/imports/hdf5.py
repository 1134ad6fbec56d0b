"""HDF5 datasets as sources: CREMI layout, and supervoxels with a table of bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import fastremap
import h5py
import numpy as np
from pydantic import Field

from em_blocks.config import LocalPath, StrictModel, VolumeAxes, VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.sources import USUAL_CHUNK, ReadBox, SourceHeader
from em_blocks.volumes.metadata import Stored, resolve, resolve_axes
from em_blocks.volumes.metadata.arrangement import Arrangement
from em_blocks.volumes.metadata.claims import SPACE, Axes
from em_blocks.volumes.stores.signature import sign

# Left out of a stored config where it is not used: runs older than the key have the same fingerprint.
StoredAxes = Annotated[
    VolumeAxes | None,
    Field(
        description="Axes as stored, the slowest first, where the file does not name them.",
        exclude_if=lambda axes: axes is None,
    ),
]


class Hdf5Dataset(StrictModel):
    """A three-dimensional dataset; attributes ``resolution`` and ``offset`` (nm, zyx) as in CREMI."""

    whole_sections: ClassVar[bool] = False

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


class Hdf5Transforms(StrictModel):
    """Supervoxel ids in one dataset, and a table (n, 2) that maps each to its body.

    Ids of bodies are stored. The whole table is held in memory.
    """

    whole_sections: ClassVar[bool] = False

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
            _arrangement(stack, self.axes)
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
    arrangement = _arrangement(dataset, axes)
    told = (told or VolumeInput(path=_name(dataset))).model_copy(update={"axes": axes})
    frame = resolve(_stored(dataset), told, optional=True).frame
    return SourceHeader(
        arrangement.spatial(dataset.shape), dataset.dtype.newbyteorder("="),
        None if frame is None else frame.voxel_size, None if frame is None else frame.offset,
        dataset.chunks and arrangement.spatial(dataset.chunks),
    )


def _arrangement(dataset: h5py.Dataset, axes: Axes | None) -> Arrangement:
    """Return the arrangement of a dataset; raises an `EmBlocksError` if it is no volume of numbers."""
    if dataset.ndim < 3 or dataset.dtype.kind not in "uif":
        raise _no_volume(dataset)
    found, named = resolve_axes(_stored(dataset), axes)
    arrangement = Arrangement.of(
        found, dataset.shape, keeps_channel=not named, source=_name(dataset)
    )
    if arrangement.kept != SPACE:
        raise _no_volume(dataset)
    return arrangement


def _no_volume(dataset: h5py.Dataset) -> ConfigError:
    return ConfigError(
        f"The dataset {dataset.name} of {dataset.file.filename} has the shape {dataset.shape} "
        f"and dtype {dataset.dtype}, but a volume (z, y, x) of integers or floats is needed."
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
    arrangement = _arrangement(dataset, axes)
    return lambda box: _read(dataset, arrangement, box)


def _read(dataset: h5py.Dataset, arrangement: Arrangement, box: Box) -> np.ndarray:
    try:
        values = dataset[arrangement.index(box)].transpose(arrangement.order)
    except OSError as error:
        raise VolumeError(
            f"Voxels {box.offset} to {box.end} (zyx) of {dataset.name} in "
            f"{dataset.file.filename} cannot be read: {error}"
        ) from error
    return np.ascontiguousarray(values, values.dtype.newbyteorder("="))


def signed_values(source: Hdf5Dataset | Hdf5Transforms) -> dict:
    """Return what identifies the values of a source: a checksum of a bounded sample."""
    header = source.header()
    with source.open() as read:
        found = sign(
            read, header.shape, header.chunk_shape or USUAL_CHUNK, np.dtype(header.dtype).itemsize
        )
    return {"values_crc32": found.crc32}

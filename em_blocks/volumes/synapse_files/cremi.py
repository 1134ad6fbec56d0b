"""HDF5 files as in the CREMI challenge (format 0.2): sites and their pairs, and volumes beside them.

``/annotations`` holds the sites (``ids``, ``types``, ``locations`` in nm, z, y, x) and, in
``presynaptic_site/partners``, one row (presynaptic id, postsynaptic id) per pair; its attribute
``offset`` is added to all locations. A T-bar with many partners is one site in many rows. A pair has
the id of its postsynaptic site; where such a site is in several pairs, pairs are numbered from 1.
Scores and objects have no place in these files and are not written.

A location is the index of a voxel times its size: the scorer of the challenge looks up the neuron at
``round(location / resolution)``. The middle of voxel 0 has the location 0 there and the position half a
voxel here, so half a voxel is added to what is read and taken from what is written. Whose voxels
these are says the attribute ``resolution`` of ``/annotations`` (which only em_blocks writes), else of a
volume in the file, else the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.geometry import Frame, Nm3
from em_blocks.kernels.evaluation.cremi_marks import BACKGROUND
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses
from em_blocks.volumes.synapse_files.checks import malformed
from em_blocks.volumes.synapse_files.cremi_locations import (
    GROUP,
    RESOLUTION,
    VOLUMES,
    CremiVolume,
    frame_of,
    half_a_voxel,
    locations_of,
    resolution_in,
)

SITES = ("presynaptic_site", "postsynaptic_site")
_PARTNERS = f"{GROUP}/presynaptic_site/partners"
_CHUNK = (8, 128, 128)


class _Sites(NamedTuple):
    ids: np.ndarray  # (n,) int64, sorted
    types: np.ndarray  # (n,) str
    locations: np.ndarray  # (n, 3) nm in the world


def read(
    path: Path, *, voxel_size: Sequence[float] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> Synapses:
    """Read partners of a file, in world coordinates.

    Parameters
    ----------
    voxel_size : (3,) float, optional
        nm (z, y, x), for a file that does not say it.
    offset : (3,) float
        Not used: the file says its own.

    Raises
    ------
    SynapseFileError
        If the size of voxels is not known; a dataset is missing or of another shape; or a row of it
        is malformed: an id that is not unique or above 2**63 - 1, a location that is not finite, a
        pair of a site that does not exist or is of the other type.
    """
    with h5py.File(path, "r") as file:
        sites = _read_sites(path, file)
        half = half_a_voxel(path, resolution_in(path, file), voxel_size) if len(sites.ids) else 0.0
        # A file of which every site is without a partner lacks the table.
        pairs = _read_ids(path, file, _PARTNERS, (2,)) if _PARTNERS in file else np.empty((0, 2), int)
    rows = _rows_of(path, sites, pairs)
    pre, post = (sites.locations[rows] + half).transpose(1, 0, 2)
    return Synapses(id=_pair_ids(pairs), pre=pre, post=post)


def write(
    path: Path, synapses: Synapses, volumes: Mapping[str, CremiVolume] | None = None, *,
    voxel_size: Sequence[float] | None = None, offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write partners, and volumes if there are any.

    Parameters
    ----------
    volumes : mapping of name in `VOLUMES` to CremiVolume
        0 is background; in clefts it is written as 2**64 - 1, which is CREMI's.
    voxel_size, offset : (3,) float
        Of the volume of neurons that the file will be scored with, nm (z, y, x): its voxels, and the
        corner of the first one. Default: of a volume that is written.

    Raises
    ------
    SynapseFileError
        If the size of voxels is not known, or a volume does not fit the type of its dataset.
    """
    volumes = volumes or {}
    for name, volume in volumes.items():
        _check_volume(path, name, volume.values)
    frame = frame_of(path, volumes, voxel_size, offset)
    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "0.2"
        for name, volume in volumes.items():
            _write_volume(file, name, volume)
        _write_annotations(file, synapses, frame)


def resolution_of(path: Path) -> Nm3 | None:
    """Return the voxel size, nm (z, y, x), that locations of a file are counted in; None if not stated.

    Raises
    ------
    SynapseFileError
        If that is not three positive numbers.
    """
    with h5py.File(path, "r") as file:
        return resolution_in(path, file)


def _read_sites(path: Path, file: h5py.File) -> _Sites:
    ids = _read_ids(path, file, f"{GROUP}/ids", ())
    order = np.argsort(ids, kind="stable")
    again = order[1:][np.diff(ids[order]) == 0]
    if len(again):
        raise malformed(path, int(again.min()), f"{GROUP}/ids {ids[again.min()]} was given before")
    types = _strings(path, file, f"{GROUP}/types", len(ids))
    locations = _locations(path, file, len(ids)) + _offset(path, file[GROUP])
    return _Sites(ids[order], types[order], locations[order])


def _read_ids(path: Path, file: h5py.File, name: str, tail: tuple[int, ...]) -> np.ndarray:
    """Return the ids of a dataset, (n, *tail) int64."""
    values = _dataset(path, file, name, tail, "ui")[:]
    # In unsigned 64 bits a comparison with a negative number is exact too.
    wrong = (values < 0) | (values > LARGEST_ID)
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        raise malformed(
            path, row, f"{name} {values[row].tolist()} is not between 0 and 2**63 - 1, the largest id "
            "that can be stored"
        )
    return values.astype(np.int64)


def _strings(path: Path, file: h5py.File, name: str, n: int) -> np.ndarray:
    dataset = _dataset(path, file, name, (), "OS", n)
    try:
        return dataset.asstr()[:].astype(str)
    except (TypeError, UnicodeDecodeError) as error:
        raise SynapseFileError(f"The dataset {name} of {path} holds no text: {error}.") from error


def _locations(path: Path, file: h5py.File, n: int) -> np.ndarray:
    name = f"{GROUP}/locations"
    locations = _dataset(path, file, name, (3,), "fui", n)[:].astype(np.float64)
    wrong = ~np.isfinite(locations).all(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise malformed(path, row, f"{name} {locations[row].tolist()} is not finite")
    return locations


def _offset(path: Path, group: h5py.Group) -> np.ndarray:
    """Return position of the location (0, 0, 0), nm."""
    offset = np.ravel(group.attrs.get("offset", (0.0, 0.0, 0.0)))
    if offset.shape != (3,) or offset.dtype.kind not in "fui" or not np.isfinite(offset).all():
        raise SynapseFileError(
            f"The attribute 'offset' of {group.name} in {path} is {offset.tolist()}, but three numbers "
            "in nm (z, y, x) are needed: they are added to all locations."
        )
    return offset.astype(np.float64)


def _dataset(
    path: Path, file: h5py.File, name: str, tail: tuple[int, ...], kinds: str, n: int | None = None
) -> h5py.Dataset:
    """Return a dataset (n, *tail) of the given kinds of dtype."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise SynapseFileError(
            f"{path} has no dataset {name}. A CREMI file with synaptic partners holds {GROUP}/ids, "
            f"{GROUP}/types, {GROUP}/locations and {_PARTNERS}; the files of the challenge that are "
            "to be predicted have none of them."
        )
    if found.ndim != 1 + len(tail) or found.shape[1:] != tail or found.dtype.kind not in kinds:
        wanted = ", ".join(["n", *map(str, tail)])
        raise SynapseFileError(
            f"The dataset {name} of {path} has the shape {found.shape} and dtype {found.dtype}, but "
            f"({wanted}) {_meaning(kinds)} are needed."
        )
    if n is not None and len(found) != n:
        raise SynapseFileError(
            f"The dataset {name} of {path} has {len(found)} rows, but {GROUP}/ids has {n}; every site "
            "needs one row in each. The file is damaged, or was not written as a whole."
        )
    return found


def _meaning(kinds: str) -> str:
    if "O" in kinds:
        return "texts"
    return "numbers" if "f" in kinds else "whole numbers"


def _rows_of(path: Path, sites: _Sites, pairs: np.ndarray) -> np.ndarray:
    """Return the rows of the sites of all pairs, (n, 2)."""
    rows = np.searchsorted(sites.ids, pairs)
    found = np.minimum(rows, max(len(sites.ids) - 1, 0))
    known = sites.ids[found] == pairs if len(sites.ids) else np.zeros(pairs.shape, bool)
    _refuse(path, pairs, ~known, lambda row, side: (
        f"there is no site {pairs[row, side]} in {GROUP}/ids"
    ))
    _refuse(path, pairs, sites.types[found] != np.array(SITES), lambda row, side: (
        f"the site {pairs[row, side]} is a {sites.types[found[row, side]]!r}, but a {SITES[side]!r} "
        "is needed there: rows are (presynaptic, postsynaptic)"
    ))
    _, first = np.unique(pairs, axis=0, return_index=True)
    again = np.ones(len(pairs), bool)
    again[first] = False
    _refuse(path, pairs, np.stack([again, again], axis=1), lambda row, side: (
        "the same pair was given before"
    ))
    return found


def _refuse(path: Path, pairs: np.ndarray, wrong: np.ndarray, problem) -> None:
    if wrong.any():
        row, side = map(int, np.argwhere(wrong)[0])
        raise malformed(path, row, f"{_PARTNERS} {pairs[row].tolist()}: {problem(row, side)}")


def _pair_ids(pairs: np.ndarray) -> np.ndarray:
    post = pairs[:, 1]
    return post if len(np.unique(post)) == len(post) else np.arange(1, len(post) + 1)


def _write_annotations(file: h5py.File, synapses: Synapses, frame: Frame) -> None:
    """Write annotations: a postsynaptic site has the id of its pair, presynaptic ones may be shared."""
    tbars, tbar = np.unique(synapses.pre, axis=0, return_inverse=True)
    tbar_ids = _unused_ids(synapses.id, len(tbars))
    group = file.create_group(GROUP)
    group.attrs["offset"] = (0.0, 0.0, 0.0)
    group.attrs[RESOLUTION] = frame.voxel_size
    group["ids"] = np.concatenate([tbar_ids, synapses.id]).astype(np.uint64)
    group["locations"] = locations_of(np.concatenate([tbars, synapses.post]), frame)
    group.create_dataset(
        "types", data=[SITES[0]] * len(tbars) + [SITES[1]] * len(synapses), dtype=h5py.string_dtype()
    )
    pairs = np.stack([tbar_ids[tbar.ravel()], synapses.id], axis=1)
    file[_PARTNERS] = pairs.astype(np.uint64)


def _unused_ids(used: np.ndarray, n: int) -> np.ndarray:
    """Return the n smallest ids from 1 that are not used."""
    return np.setdiff1d(np.arange(1, len(used) + n + 1), used)[:n]


def _check_volume(path: Path, name: str, values: np.ndarray) -> None:
    dataset, dtype = VOLUMES[name]
    if values.ndim != 3 or not np.can_cast(values.dtype, dtype):
        raise SynapseFileError(
            f"The volume for {dataset} of {path} is {values.dtype} of shape {values.shape}, but the "
            f"format needs (z, y, x) {dtype}. Convert it first, for example with `em-blocks ingest`."
        )


def _write_volume(file: h5py.File, name: str, volume: CremiVolume) -> None:
    path, dtype = VOLUMES[name]
    values = volume.values
    if name == "clefts":
        values = np.where(values == 0, BACKGROUND, values.astype(dtype))
    chunks = tuple(min(pair) for pair in zip(_CHUNK, values.shape, strict=True))
    dataset = file.create_dataset(
        path, data=values, dtype=dtype, chunks=chunks, compression="gzip", compression_opts=1,
        shuffle=dtype.itemsize > 1,
    )
    dataset.attrs["resolution"] = volume.frame.voxel_size
    dataset.attrs["offset"] = volume.frame.offset

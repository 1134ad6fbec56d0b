"""Volumes of ids - segmentations and truth - from any format, at one place of the world."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import Box, Frame, Roi, Triple
from em_blocks.kernels.evaluation.contingency import negative_ids
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.volumes.imports.sources import ReadBox
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.values import opened_values, unplaced


@dataclass(frozen=True)
class Labels:
    """Integer ids (z, y, x) of a volume.

    Attributes
    ----------
    path : str
        ``path.zarr/dataset``, ``file.h5:dataset`` or another file of `opened_values`.
    frame : Frame or None
        None where a file does not say how large its voxels are.
    chunk_shape : (3,) int
        Voxels (z, y, x) that are stored, and so best read, together.
    read : function
        Ids of a box of voxels.
    identity : dict
        Identifies the content, to detect that a file has changed.
    attributes : dict
        Of the volume; empty for files.
    """

    path: str
    shape: Triple
    dtype: np.dtype
    frame: Frame | None
    chunk_shape: Triple
    read: ReadBox
    identity: dict
    attributes: dict

    @property
    def place(self) -> Frame:
        """Where its voxels lie; raises `ConfigError` where nothing says it."""
        if self.frame is None:
            raise unplaced(self.path, self.shape)
        return self.frame

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box((0, 0, 0), self.shape)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids at points of the world; one chunk after the other is read, each at most once.

        Parameters
        ----------
        positions : (n, 3) float array
            nm (z, y, x).

        Returns
        -------
        ids : (n,) uint64 array
            0 outside of the volume; a negative id that may be read is 2**64 + id.
        inside : (n,) bool array
        """
        voxels = np.floor(as_voxels(
            positions, voxel_size=self.place.voxel_size, offset=self.place.offset
        )).astype(np.int64)
        inside = np.all((voxels >= 0) & (voxels < self.shape), axis=1)
        ids = np.zeros(len(voxels), np.uint64)
        places = np.flatnonzero(inside)
        chunks, member = np.unique(
            voxels[places] // self.chunk_shape, axis=0, return_inverse=True
        )
        order = np.argsort(member, kind="stable")
        for group in np.split(order, np.cumsum(np.bincount(member, minlength=len(chunks)))[:-1]):
            here = places[group]
            if len(here):
                first = voxels[here].min(axis=0)
                values = self.read(Box.between(first, voxels[here].max(axis=0) + 1))
                ids[here] = values[tuple((voxels[here] - first).T)]
        return ids, inside


def check_sample(labels: Labels) -> None:
    """Raise the error of reading an id below 0, if a few chunks of a volume hold one."""
    if labels.dtype.kind == "i":
        for box in sample_boxes(labels.shape, labels.chunk_shape):
            labels.read(box)


@contextmanager
def open_labels(
    path: str | VolumeInput, *, negative: Collection[int] | None = ()
) -> Iterator[Labels]:
    """Open a volume of ids for reading.

    Parameters
    ----------
    path : str or VolumeInput
        As `opened_values` takes it: an array in any format of `Volume`, or a file.
    negative : ints or None
        Ids below 0 that may be read, because the caller knows what they mean; None: all.

    Raises
    ------
    ConfigError, VolumeError
        If there is nothing at `path`, or no ids. Reading raises the first where an id is negative.
    """
    with _opened(path) as labels:
        if negative is not None and labels.dtype.kind == "i":
            labels = replace(labels, read=partial(_read_checked, labels, negative))
        yield labels


def _read_checked(labels: Labels, negative: Collection[int], box: Box) -> np.ndarray:
    """Return the ids of a box, none of them below 0 but those in `negative`."""
    values = labels.read(box)
    refuse_negative(labels.path, values, negative, box.offset)
    return values


def refuse_negative(
    path: str, ids: np.ndarray, allowed: Collection[int], corner: Triple | None = None
) -> None:
    """Raise `ConfigError` if an id is below 0 and not allowed.

    Parameters
    ----------
    ids : int array
        A box of the volume at `path`, or any ids of it.
    corner : (3,) int, optional
        First voxel of the box, to say where the id is.
    """
    wrong = negative_ids(ids, allowed)
    if not len(wrong):
        return
    id = wrong[0]
    place = "" if corner is None else f" at voxel {_first(ids == id, corner)} (zyx)"
    raise ConfigError(
        f"{path} holds the id {id}{place}, but ids are 0 (background) or positive, so it is not clear "
        "whether this is an object. If it marks background or what is unknown, ignore it where the "
        f"command can (`--ignore {id}`, `--ignore-segmentation {id}`, or the keys of a config), or "
        "store 0 there."
    )


def _first(mask: np.ndarray, corner: Triple) -> Triple:
    return tuple((np.argwhere(mask)[0] + corner).tolist())


@contextmanager
def _opened(path: str | VolumeInput) -> Iterator[Labels]:
    with opened_values(path) as values:
        _check_ids(values.path, values.dtype, values.full_shape)
        yield Labels(
            path=values.path, shape=values.shape, dtype=values.dtype, frame=values.frame,
            chunk_shape=values.chunk_shape, read=values.read, identity=values.identity,
            attributes=values.attributes,
        )


def _check_ids(path: str, dtype: np.dtype, shape: Sequence[int]) -> None:
    if len(shape) != 3 or dtype.kind not in "ui":
        raise ConfigError(
            f"{path} holds {dtype} values of shape {tuple(shape)}, but one integer id per voxel "
            "(z, y, x) is needed. Name a volume of segments or neurons, not of raw data or "
            f"predictions.{_of_colours(dtype, shape)}"
        )


def _of_colours(dtype: np.dtype, shape: Sequence[int]) -> str:
    """Advice for labels that are painted in colours."""
    if len(shape) != 4 or shape[0] not in (3, 4) or dtype != np.uint8:
        return ""
    return " If its colours stand for ids, `em-blocks convert` with rgb_to_ids makes a volume of them."


def placed(volumes: Sequence[Labels]) -> list[Labels]:
    """Return the same volumes, all with a frame.

    A file that does not state its place gets that of the others, if it has their shape.

    Raises
    ------
    ConfigError
        If it has another shape, so that its place is unknown.
    """
    known = next((v for v in volumes if v.frame is not None), None)
    example = known or replace(volumes[0], frame=Frame((1.0, 1.0, 1.0)))
    for volume in volumes:
        if volume.frame is None and volume.shape != example.shape:
            raise unplaced(
                volume.path, volume.shape,
                f"; it cannot be that of {example.path}, which has {example.shape} voxels",
            )
    return [v if v.frame is not None else replace(v, frame=example.frame) for v in volumes]


def shared_region(volumes: Sequence[Labels], roi: Roi | None = None) -> tuple[Frame, Triple]:
    """Return the region that all volumes (and `roi`) cover.

    Returns
    -------
    frame : Frame
        Its voxels; the first one is the first that all volumes have.
    shape : (3,) int
        Its size in voxels.

    Raises
    ------
    ConfigError
        If voxel sizes differ, or there is no such region.
    GeometryError
        If the volumes are shifted by a part of a voxel.
    """
    first = volumes[0].place
    box = volumes[0].box if roi is None else volumes[0].box.intersect(first.to_box(roi))
    for volume in volumes[1:]:
        if not np.allclose(volume.place.voxel_size, first.voxel_size, rtol=1e-6, atol=0):
            raise ConfigError(
                f"{volumes[0].path} has voxels of {first.voxel_size} nm and {volume.path} of "
                f"{volume.place.voxel_size} nm (zyx), but voxels can only be compared one by one. "
                "Bring both to one voxel size."
            )
        try:
            box = box.intersect(first.to_box(volume.place.to_roi(volume.box)))
        except GeometryError as error:
            raise GeometryError(
                f"The voxels of {volumes[0].path} and {volume.path} do not lie on one grid: their "
                f"offsets are {first.offset} and {volume.place.offset} nm (zyx), with voxels of "
                f"{first.voxel_size} nm. Correct the offset of one of them."
            ) from error
    if not box.size:
        places = "; ".join(f"{v.path} covers {_place(v)}" for v in volumes)
        wanted = "" if roi is None else f"; the ROI is {roi.offset} to {roi.end}"
        raise ConfigError(
            f"There is no voxel that all volumes cover: {places}{wanted} (nm, zyx). Check their "
            "offsets and voxel sizes."
        )
    return Frame(first.voxel_size, first.to_roi(box).offset), box.shape


def same_grid(volumes: Sequence[Labels]) -> tuple[Frame, Triple]:
    """Return the frame and shape (voxels) that all volumes, which have frames, share.

    Raises
    ------
    ConfigError
        If one of them differs.
    """
    first = volumes[0]
    for other in volumes[1:]:
        if other.shape != first.shape or not _same_place(first.place, other.place):
            raise ConfigError(
                f"{first.path} and {other.path} are not on one voxel grid: {_grid(first)}, and "
                f"{_grid(other)}. Voxels are compared one by one, so a shift would count the wrong "
                "ones. Bring all volumes to one shape, voxel size and offset."
            )
    return first.place, first.shape


def _same_place(one: Frame, other: Frame) -> bool:
    """Return whether voxels have one size, and first voxels differ by less than a hundredth of it."""
    sizes = np.array(one.voxel_size)
    shift = np.abs(np.subtract(one.offset, other.offset)) / sizes
    return np.allclose(sizes, other.voxel_size, rtol=1e-6, atol=0) and bool((shift < 0.01).all())


def _grid(labels: Labels) -> str:
    return (
        f"{labels.shape} voxels of {labels.place.voxel_size} nm from {labels.place.offset} nm on (zyx)"
    )


def _place(labels: Labels) -> str:
    roi = labels.place.to_roi(labels.box)
    return f"{roi.offset} to {roi.end}"


def read_in(labels: Labels, frame: Frame, box: Box) -> np.ndarray:
    """Return the ids of a box of another volume's voxels, which lie on the same grid."""
    return labels.read(labels.place.to_box(frame.to_roi(box)))

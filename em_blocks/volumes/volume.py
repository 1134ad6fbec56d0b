"""One array of a volume, read and written in voxels or nm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import tensorstore as ts

from em_blocks.config import VolumeInput
from em_blocks.errors import BlockAlignmentError, GeometryError, VolumeError
from em_blocks.extras import needed_extras
from em_blocks.geometry import BlockGrid, Box, Frame, Nm3, Roi, Triple, triple
from em_blocks.kernels.transforms.reflection import reflected
from em_blocks.volumes.formats.base import Layout, StorageFormat
from em_blocks.volumes.formats.storage import arrays_below, check_free, detect, format_named
from em_blocks.volumes.indexing import basic_index
from em_blocks.volumes.metadata import resolve
from em_blocks.volumes.metadata.arrangement import Arrangement
from em_blocks.volumes.metadata.attributes import frame_attributes, keeps_channel_axis
from em_blocks.volumes.stores import store

Outside = Literal["constant", "reflect", "error"]
"""What lies beyond the end of a volume: a constant (0), its mirror image, or nothing."""


class Volume:
    """An array (z, y, x) or (c, z, y, x) with its place in the world.

    Made by `Volume.open` and `Volume.create`. A `Box` counts voxels of this volume
    from its first voxel; a `Roi` is nm in the world.

    Attributes
    ----------
    path : str
        Folder or URL of the array.
    frame : Frame
        Voxel size and offset, nm (z, y, x).
    shape : (3,) int
        Voxels (z, y, x), without channels.
    channels : int or None
        None for an array without channel axis.
    chunk_shape : (3,) int
        Voxels (z, y, x) that are written as one file or object (shards where there are any).
    arrangement : Arrangement
        How its axes are stored.
    scale : float or None
        Stored value that means 1.0, for quantised predictions.
    storage : StorageFormat
        Its format.
    """

    def __init__(
        self, path: str, storage: StorageFormat, array: ts.TensorStore,
        said: VolumeInput | None = None,
    ):
        self.path = path
        self.storage = storage
        self.attributes = attributes = storage.read_attributes(path)
        if storage.x_first:
            array = array.T
        resolved = resolve(storage.stored(path, array.shape, attributes), said)
        assert resolved.frame is not None  # only files of HDF5 may not say it
        self.frame: Frame = resolved.frame
        self.arrangement = Arrangement.of(
            resolved.axes, array.shape, source=path,
            keeps_channel=keeps_channel_axis(attributes) or not resolved.named,
        )
        self._array = _spatial_view(array, self.arrangement)
        self.channels: int | None = self._array.shape[0] if self._array.rank == 4 else None
        self.shape: Triple = triple(self._array.shape[-3:])
        self.dtype = self._array.dtype.numpy_dtype
        self.chunk_shape: Triple = _chunk(self._array, self._array.chunk_layout.write_chunk)
        self.scale: float | None = _scale(attributes)

    @classmethod
    def open(cls, path: str | VolumeInput, *, mode: Literal["r", "r+"] = "r") -> Volume:
        """Open an existing array.

        Parameters
        ----------
        path : str or VolumeInput
            A VolumeInput overrides wrong or missing metadata of the array.

        Raises
        ------
        VolumeError
            If there is no array at `path`, or it does not state its voxel size.
        """
        said, path = path if isinstance(path, VolumeInput) else None, str(path)
        storage = detect(path)
        if storage is None:
            raise VolumeError(_nothing_at(path))
        with store.explained(f"The volume {path} ({storage.name}) cannot be opened"):
            array = storage.open(path, write=mode == "r+")
        return cls(path, storage, array, said)

    @classmethod
    def create(
        cls,
        path: str,
        *,
        shape: Triple,
        dtype: np.dtype | str,
        frame: Frame,
        chunk_shape: Triple,
        channels: int | None = None,
        format: str = "zarr",
        shard_shape: Triple | None = None,
        attributes: dict | None = None,
    ) -> Volume:
        """Create an array; it reads as 0 until it is written.

        Parameters
        ----------
        shape, chunk_shape, shard_shape : (3,) int
            Voxels (z, y, x). Shards (zarr3 only) hold whole chunks.
        attributes : dict, optional
            Stored beside the frame, for example ``scale``.

        Raises
        ------
        VolumeError
            If something exists at `path`, or the format cannot hold the array.
        """
        path = str(path)
        layout = Layout(shape, np.dtype(dtype), frame, chunk_shape, channels, shard_shape)
        cls.check_creatable(path, format, layout)
        values = {**frame_attributes(frame, channels=channels is not None), **(attributes or {})}
        with store.explained(f"The volume {path} ({format}) cannot be created"):
            format_named(format).create(path, layout, values)
        return cls.open(path, mode="r+")

    @staticmethod
    def check_creatable(path: str, format: str, layout: Layout) -> None:
        """Raise `VolumeError` where `create` would, but write nothing."""
        storage = format_named(format)
        check_free(path)
        with store.explained(f"The volume {path} ({format}) cannot be created"):
            storage.check(layout)

    @property
    def format(self) -> str:
        """Name of its format."""
        return self.storage.name

    @property
    def piece_shape(self) -> Triple:
        """Voxels (z, y, x) that are best read together: chunks, within shards too."""
        return _chunk(self._array, self._array.chunk_layout.read_chunk)

    @property
    def box(self) -> Box:
        """All voxels."""
        return Box((0, 0, 0), self.shape)

    @property
    def roi(self) -> Roi:
        """The region of the world that the volume covers, nm."""
        return self.frame.to_roi(self.box)

    @property
    def nbytes(self) -> int:
        """Size of all voxels in memory, bytes."""
        return self.box.size * (self.channels or 1) * self.dtype.itemsize

    @property
    def voxel_size(self) -> Nm3:
        """nm per voxel (z, y, x)."""
        return self.frame.voxel_size

    @property
    def offset(self) -> Nm3:
        """World position of the first corner, nm (z, y, x)."""
        return self.frame.offset

    @property
    def ndim(self) -> int:
        """Number of axes of what is read: 4 with channels, else 3."""
        return len(self._lead) + 3

    def __repr__(self) -> str:
        size = f"{self.shape}" if self.channels is None else f"{self.channels} x {self.shape}"
        return (
            f"<Volume {self.path}: {size} {self.dtype}, voxel size {self.voxel_size} nm, "
            f"offset {self.offset} nm (z, y, x)>"
        )

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read voxels by a numpy index of the array (z, y, x) or (c, z, y, x), a Box or a Roi.

        Examples
        --------
        ``volume[10]`` is a section, ``volume[..., :64, :64]`` its corner in all sections, and
        ``volume[Roi((400, 0, 0), (40, 512, 512))]`` a region of the world, nm.

        Raises
        ------
        IndexError
            If an index lies outside, has a step, or is no integer and no slice.
        GeometryError
            If a Box or Roi leaves the volume, or a Roi does not lie on its voxels.
        """
        if isinstance(key, (Box, Roi)):
            return self.read(key)
        index = basic_index(key, (*self._lead, *self.shape), self.path)
        return self._read_at(index, f"Voxels {key} of {self.path} cannot be read")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all voxels into memory."""
        if copy is False:
            raise ValueError(f"{self.path} is stored in chunks and cannot be used without a copy of it.")
        values = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)

    def chunks(self) -> Iterator[Box]:
        """Yield the boxes that are best read one by one, z slowest; border ones are cut."""
        grid = BlockGrid(self.frame, self.shape, self.piece_shape)
        return (block.write_box for block in grid.blocks())

    def to_dask(self) -> Any:
        """Return the volume as a dask array (z, y, x) or (c, z, y, x), one chunk per stored chunk.

        Raises
        ------
        ConfigError
            If dask is not installed.
        """
        with needed_extras():
            import dask.array

        def read(block_info: dict) -> np.ndarray:
            return self[tuple(slice(*ends) for ends in block_info[None]["array-location"])]

        chunks = dask.array.core.normalize_chunks(
            (*self._lead, *self.piece_shape), (*self._lead, *self.shape)
        )
        return dask.array.map_blocks(
            read, chunks=chunks, dtype=self.dtype, meta=np.empty((0,) * self.ndim, self.dtype)
        )

    def read(self, where: Box | Roi, *, outside: Outside = "error") -> np.ndarray:
        """Return stored values of a region.

        Parameters
        ----------
        where : Box or Roi
            Voxels of this volume, or nm on its voxel grid.
        outside : {"constant", "reflect", "error"}
            Voxels beyond the volume: 0, mirrored at the border voxel (which is not
            repeated), or an error.

        Returns
        -------
        (z, y, x) or (c, z, y, x) array

        Raises
        ------
        VolumeError
            If a chunk cannot be read or decoded; the message names it.
        GeometryError
            If the region leaves the volume and `outside` is "error", or if
            a Roi does not lie on the voxel grid.
        """
        box = self.frame.to_box(where) if isinstance(where, Roi) else where
        inside = box.intersect(self.box)
        if inside == box:
            return self._read_inside(box)
        if outside == "error":
            raise GeometryError(
                f"The voxels {box.offset} to {box.end} (zyx) leave the volume {self.path} of "
                f"{self.shape} voxels. Choose a region inside of it, or say what lies outside."
            )
        if outside == "reflect":
            return self._read_reflected(box)
        result = np.zeros((*self._lead, *box.shape), self.dtype)
        if inside.size:
            result[(..., *inside.relative_to(box).slices)] = self._read_inside(inside)
        return result

    def read_scaled(self, where: Box | Roi, *, outside: Outside = "error") -> np.ndarray:
        """Read as `read`, but float32 in units of the network's output: stored / scale."""
        return self.read(where, outside=outside).astype(np.float32) / (self.scale or 1.0)

    def write(self, box: Box, values: np.ndarray) -> None:
        """Replace the voxels of `box`, which must be whole chunks.

        Raises
        ------
        BlockAlignmentError
            If `box` cuts a chunk: two workers on one chunk silently lose voxels.
        GeometryError
            If the values do not fill the box.
        VolumeError
            If the values are of another dtype than the volume, or the storage refuses.
        """
        self.check_alignment(box)
        if values.shape != (*self._lead, *box.shape):
            raise GeometryError(
                f"Values of shape {values.shape} do not fill the box {box.shape} of {self.path} "
                f"with {self.channels or 'no'} channels."
            )
        if values.dtype != self.dtype:
            # No silent cast, not even a safe one: a block's checksum is that of stored values.
            raise VolumeError(
                f"Values of dtype {values.dtype} are not written to {self.path}, which holds "
                f"{self.dtype}. Convert them, or create the volume with that dtype."
            )
        with store.explained(f"{self.path} cannot be written"):
            self._array[(..., *box.slices)].write(values).result()

    def check_alignment(self, box: Box) -> None:
        """Raise `BlockAlignmentError` unless `box` is a whole number of chunks."""
        starts = all(o % c == 0 for o, c in zip(box.offset, self.chunk_shape, strict=True))
        ends = all(
            e % c == 0 or e == s
            for e, c, s in zip(box.end, self.chunk_shape, self.shape, strict=True)
        )
        if not (starts and ends and self.box.contains(box)):
            raise BlockAlignmentError(
                f"The box from {box.offset} to {box.end} is not a whole number of chunks "
                f"{self.chunk_shape} of {self.path} (voxels, zyx). Two workers would write the same "
                "chunk, and one write would be lost."
            )

    def set_attributes(self, **attributes) -> None:
        """Store user attributes, replacing those of the same name."""
        self.storage.write_attributes(self.path, attributes)
        self.attributes = {**self.attributes, **attributes}
        self.scale = _scale(self.attributes)

    @property
    def _lead(self) -> tuple[int, ...]:
        return () if self.channels is None else (self.channels,)

    def _read_inside(self, box: Box) -> np.ndarray:
        what = f"Voxels {box.offset} to {box.end} (zyx) of {self.path} cannot be read"
        return self._read_at((..., *box.slices), what)

    def _read_at(self, index: tuple, what: str) -> np.ndarray:
        with store.explained(what):
            return self._array[index].read(order="C").result()

    def _read_reflected(self, box: Box) -> np.ndarray:
        # Indices are mirrored in the whole volume, not in the part that was read: otherwise
        # the padding would depend on the block shape.
        indices = [
            reflected(o, e, n)
            for o, e, n in zip(box.offset, box.end, self.shape, strict=True)
        ]
        needed = Box.between([i.min() for i in indices], [i.max() + 1 for i in indices])
        values = self._read_inside(needed)
        for axis, (index, begin) in enumerate(zip(indices, needed.offset, strict=True), start=-3):
            values = values.take(index - begin, axis=axis)
        return values


def _spatial_view(array: ts.TensorStore, arrangement: Arrangement) -> ts.TensorStore:
    """Return the array as (z, y, x) or (c, z, y, x), starting at 0."""
    if arrangement.dropped:
        array = array[ts.d[arrangement.dropped][(0,) * len(arrangement.dropped)]]
    return array.transpose(arrangement.order)[ts.d[:].translate_to[0]]


def _chunk(array: ts.TensorStore, grid: ts.ChunkLayout.Grid) -> Triple:
    """Return voxels (z, y, x) of a piece; of the whole array where it is not made of pieces."""
    return triple(grid.shape[-3:]) if grid.shape is not None else triple(array.shape[-3:])


def _scale(attributes: dict) -> float | None:
    """Return the stored value that means 1.0. Other programs store lists or text under that name."""
    scale = attributes.get("scale")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        return None
    return scale if 0 < scale < math.inf else None


def _nothing_at(path: str) -> str:
    """Return the message for a path without an array."""
    message = (
        f"There is no volume at {path}: no zarr array (v2 or v3), N5 dataset or precomputed info was "
        "found there. "
    )
    if names := arrays_below(path):
        return message + f"It is a container; name one of its arrays: {', '.join(names)}."
    return message + "Check the path, or make the volume with `em-blocks ingest`."

"""The contract of a storage format: everything that differs between formats, one class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorstore as ts

from em_blocks.config import is_url
from em_blocks.geometry import Frame, Triple
from em_blocks.volumes.metadata import Group, Stored
from em_blocks.volumes.metadata.attributes import are_ours
from em_blocks.volumes.metadata.claims import SPACE
from em_blocks.volumes.stores import store

_HIGHEST = 3
"""Folders above an array in no container that are asked about it."""


@dataclass(frozen=True)
class Layout:
    """All that decides how an array is stored, apart from its format.

    Shapes are voxels (z, y, x). All channels of a voxel share a chunk, so that one
    block writes whole chunks.
    """

    shape: Triple
    dtype: np.dtype
    frame: Frame
    chunk_shape: Triple
    channels: int | None = None
    shard_shape: Triple | None = None

    @property
    def axes(self) -> list[str]:
        """Names of the axes."""
        return [*([] if self.channels is None else ["c"]), *SPACE]

    def full(self, shape: Triple) -> list[int]:
        """Return `shape` with the channel axis, if there is one."""
        return [*([] if self.channels is None else [self.channels]), *shape]


class StorageFormat(ABC):
    """A way to store arrays, groups of them and their metadata.

    Parameters
    ----------
    name : str
        Name of the format in configs, under which it is registered.
    """

    marker: ClassVar[str]
    """JSON file that makes a folder an array."""
    attributes_file: ClassVar[str]
    """JSON file of user attributes, the marker or another one."""
    group_file: ClassVar[tuple[str, dict] | None] = None
    """JSON file that makes a folder a group, and what is in it; None: there are no groups."""
    container_suffix: ClassVar[str | None] = None
    """How folders of groups and arrays are named, so that other programs find them."""
    x_first: ClassVar[bool] = False
    """Whether arrays are stored as (x, y, z, c), not as (c, z, y, x)."""
    has_shards: ClassVar[bool] = False
    """Whether a file can hold several chunks that are read one by one."""
    has_pyramids: ClassVar[bool] = False
    """Whether readers of the format find coarser levels of a volume."""
    holds_scales: ClassVar[bool] = False
    """Whether an array is one of several scales of a volume, whose voxels count from the world's
    origin, so that every scale starts at a whole voxel of its own."""
    viewer_scheme: ClassVar[str | None] = None
    """Scheme of the format in neuroglancer's URL of a source; None: neuroglancer cannot read it."""

    def __init__(self, name: str):
        self.name = name

    # -- arrays -------------------------------------------------------------------------

    def is_array(self, path: str) -> bool:
        """Return whether there is an array of this format at `path`."""
        return store.read_json(path, self.marker) is not None

    def is_taken(self, path: str) -> bool:
        """Return whether a new array at `path` would damage an array or a group of this format."""
        names = {self.marker} if self.group_file is None else {self.marker, self.group_file[0]}
        return any(store.read_json(path, name) is not None for name in names)

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Raise ValueError where the format cannot hold an array of this layout."""

    @abstractmethod
    def create(self, path: str, layout: Layout, attributes: dict) -> None:
        """Make an array and the groups above it.

        The file by which the array is found is written last and holds or follows its
        attributes: a process killed here leaves a whole array or none.
        """

    @abstractmethod
    def open(self, path: str, *, write: bool) -> ts.TensorStore:
        """Open an array, axes as it is stored.

        Reading a damaged chunk raises ValueError, OSError or EOFError.
        """

    def forget(self, path: str) -> None:
        """Remove what is stored elsewhere of an array whose folder was deleted."""
        return None

    # -- metadata -----------------------------------------------------------------------

    def read_attributes(self, path: str) -> dict:
        """Return all user attributes of an array."""
        return store.read_json(path, self.attributes_file) or {}

    def write_attributes(self, path: str, attributes: dict) -> None:
        """Replace the named user attributes of an array or a group, leave others alone."""
        values = store.read_json(path, self.attributes_file) or {}
        store.write_json(path, self.attributes_file, {**values, **attributes})

    def stored(self, path: str, shape: Sequence[int], attributes: dict) -> Stored:
        """Return all metadata of the array at `path`, those of the groups it lies in too.

        Parameters
        ----------
        shape : sequence of int
            As numpy shows the array: the slowest axis first.
        attributes : dict
            Those of the array, as `read_attributes` gives them.
        """
        # An array of ours tells everything itself; what the group says of it may be of one that was
        # deleted, until its pyramid is finished.
        groups = [] if are_ours(attributes) else list(self._groups(path))
        return Stored(path, tuple(shape), attributes, groups)

    def holds_labels(self, path: str) -> bool | None:
        """Return whether the values are ids; None where the format does not say it."""
        return None

    # -- groups and pyramids ------------------------------------------------------------

    def make_group(self, path: str) -> None:
        """Make the folder `path` a group, so that readers can walk into it."""
        if self.group_file is not None and store.read_json(path, self.group_file[0]) is None:
            store.write_json(path, *self.group_file)

    def group_attributes(self, path: str) -> dict | None:
        """Return user attributes of a group; None where there is none."""
        return store.read_json(path, self.attributes_file)

    def pyramid_attributes(self, multiscale: dict) -> dict:
        """Return the attributes of the group of a pyramid, from its OME-NGFF entry without version."""
        return {"multiscales": [{"version": "0.4", **multiscale}]}

    def own_levels(self, path: str, attributes: dict) -> list[str]:
        """Return the paths of the levels of a pyramid that is of another kind than OME-NGFF."""
        return []

    def _groups(self, path: str) -> Iterator[Group]:
        """Yield the groups that an array lies in, the nearest first; folders between may be none."""
        above = store.groups_above(path)[::-1] or list(_folders_above(path))
        for folder in above:
            attributes = self.group_attributes(folder)
            if attributes is not None:
                yield Group(folder, path.rstrip("/").removeprefix(f"{folder}/"), attributes)

    # -- neuroglancer -------------------------------------------------------------------

    def volume_of(self, path: str) -> str:
        """Return folder of the volume that the array at `path` is a scale of."""
        return path

    def viewer_axes(self, path: str, attributes: dict, rank: int) -> list[str]:
        """Return the names that neuroglancer gives the axes of an array by itself."""
        return viewer_names(attributes.get("_ARRAY_DIMENSIONS"), rank, "d")

    def viewer_problem(self, *, channels: bool) -> str | None:
        """Return why neuroglancer cannot show an array; None if it can."""
        if self.viewer_scheme is not None:
            return None
        return f"is stored in the format {self.name}, which neuroglancer cannot show. Store it as zarr."


class DriverFormat(StorageFormat):
    """A format that tensorstore has a driver for."""

    driver: ClassVar[str]
    """Of tensorstore."""

    @abstractmethod
    def creation_spec(self, path: str | None, layout: Layout, attributes: dict) -> dict:
        """Return the tensorstore spec, without driver and kvstore, that creates an array.

        Parameters
        ----------
        path : str or None
            Where; None to check the layout alone.

        Raises
        ------
        ValueError
            If the format cannot hold it.
        """

    def check(self, layout: Layout) -> None:
        if layout.shard_shape is not None and not self.has_shards:
            raise ValueError(f"the format {self.name} has no shards, zarr3 has")
        # Made in memory, as an array without voxels: only the format knows all of its rules.
        spec = {"kvstore": {"driver": "memory"}, **self.creation_spec(None, layout, {})}
        ts.open({"driver": self.driver, **spec}, create=True).result()

    def create(self, path: str, layout: Layout, attributes: dict) -> None:
        for group in store.groups_above(path):
            self.make_group(group)
        spec = {"kvstore": store.kvstore_spec(path), **self.creation_spec(path, layout, attributes)}
        ts.open({"driver": self.driver, **spec}, create=True, open=False).result()

    def open(self, path: str, *, write: bool) -> ts.TensorStore:
        spec = {"driver": self.driver, "kvstore": store.kvstore_spec(path)}
        return ts.open(spec, open=True, read=True, write=write).result()


def viewer_names(given: Sequence[str | None] | None, rank: int, prefix: str) -> list[str]:
    """Return the names of axes, those that have none by their number: ``d0``."""
    return [name or f"{prefix}{n}" for n, name in enumerate(given or [None] * rank)]


def _folders_above(path: str) -> Iterator[str]:
    """Yield the folders that an array in no container lies in, the nearest first, but not all."""
    for _ in range(_HIGHEST):
        folder = store.split_parent(path)[0]
        if not folder or (is_url(path) and not is_url(folder)):
            return
        yield (path := folder)

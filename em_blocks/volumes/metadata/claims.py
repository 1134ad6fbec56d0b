"""Stored metadata of an array, and the claims that dialects of metadata make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from em_blocks.geometry import Nm3, triple

SPACE = ("z", "y", "x")
Axes = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """A group that an array lies in.

    Attributes
    ----------
    path : str
        For messages.
    name : str
        Of the array, as seen from the group: ``s0``, or ``a/b/s0`` several groups up.
    attributes : dict
    """

    path: str
    name: str
    attributes: dict


@dataclass(frozen=True)
class Stored:
    """Everything that is stored of an array, apart from its values.

    Attributes
    ----------
    source : str
        Path of the array, for messages.
    shape : tuple of int
        As numpy shows the array: the slowest axis first.
    attributes : dict
        Its own.
    groups : sequence of Group
        Those that it lies in, the nearest first.
    names : sequence of str or None
        ``dimension_names`` of zarr v3, labels of HDF5 dimensions; empty where there are none.
    scale : dict or None
        Of a precomputed volume: what ``info`` says of the scale.
    n5 : bool
        Whether the array is an N5 dataset, which lists x first.
    """

    source: str
    shape: tuple[int, ...]
    attributes: dict
    groups: Sequence[Group] = ()
    names: Sequence[str | None] = ()
    scale: dict | None = None
    n5: bool = False


@dataclass(frozen=True)
class Place:
    """Voxel size and offset that one dialect claims.

    Attributes
    ----------
    dialect : str
        For messages, e.g. ``the attribute 'transform'``.
    voxel_size, offset : (3,) float or None
        nm (z, y, x); the offset is the corner of the first voxel.
    other_size : (3,) float or None
        Another meaning of `voxel_size`, if another dialect states that one: writers disagree.
    states_offset : bool
        Whether the offset is written there, or follows from nothing being written.
    in_nm : bool
        False where the unit is missing or is pixels: then only the offset in voxels means something.
    """

    dialect: str
    voxel_size: Nm3 | None = None
    offset: Nm3 | None = None
    other_size: Nm3 | None = None
    states_offset: bool = False
    in_nm: bool = True


@dataclass(frozen=True)
class Problem:
    """Metadata of one dialect that cannot be understood."""

    dialect: str
    reason: str


@dataclass
class Claims:
    """Claims of all dialects about one array."""

    axes: dict[str, Axes] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def in_space(values: Sequence, axes: Sequence[str], *, what: str) -> tuple:
    """Return values as (z, y, x).

    Parameters
    ----------
    values : sequence
        One per axis, or one per axis of space in the order of `axes`.
    axes : sequence of str
        Names of axes.
    what : str
        Name of the values, for the error.

    Raises
    ------
    ValueError
        If neither fits.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise ValueError(f"{what} is {values!r} instead of a list of three")
    space = [axis for axis in axes if axis in SPACE]
    if sorted(space) != sorted(SPACE):
        raise ValueError(f"its axes are {list(axes)}, but z, y and x are needed")
    for named in (space, list(axes)):
        if len(values) == len(named):
            found = dict(zip(named, values, strict=True))
            return tuple(found[axis] for axis in SPACE)
    raise ValueError(f"{what} has {len(values)} values, but there are the axes {list(axes)}")


def corner(centre: Sequence[float], size: Sequence[float]) -> Nm3:
    """Return the corner of a voxel around `centre`."""
    return triple(c - s / 2 for c, s in zip(centre, size, strict=True))

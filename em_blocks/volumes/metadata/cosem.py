"""COSEM's ``transform``: scale, and centre of the first voxel, by names of axes.

Of the array itself, or of the levels that the ``multiscales`` of its group list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from em_blocks.volumes.metadata.claims import SPACE, Axes, Place, Stored, corner, in_space
from em_blocks.volumes.metadata.names import are_axes, normal
from em_blocks.volumes.metadata.units import to_nm

_DIALECT = "the attribute 'transform'"


def named_axes(stored: Stored) -> Iterator[tuple[str, Axes]]:
    """Yield the axes of the array, where the transform names as many as it has."""
    transform = stored.attributes.get("transform")
    if not _is_transform(transform) or "axes" not in transform:
        return
    axes = tuple(normal(name) for name in transform["axes"])
    if len(axes) != len(stored.shape) or not are_axes(axes):
        return
    backwards = transform.get("order") == "F" or (
        # As N5 lists its dimensions, which is the order "F" even if the transform does not say so.
        stored.n5 and transform.get("order") is None and [a for a in axes if a in SPACE] == [*"xyz"]
    )
    yield _DIALECT, axes[::-1] if backwards else axes


def places(stored: Stored, axes: Axes) -> Iterator[Place]:
    """Yield the place that the transform of the array states.

    Raises
    ------
    ValueError, TypeError
        If it makes no sense.
    """
    transform = stored.attributes.get("transform")
    if _is_transform(transform):
        yield place(transform, _DIALECT)


def place(transform: dict, dialect: str) -> Place:
    """Return the place that a transform states; raises ValueError or TypeError if it makes no sense."""
    names = transform.get("axes") or SPACE
    if not isinstance(names, Sequence):
        raise ValueError(f"'axes' is {names!r} instead of a list of names")
    axes = [normal(name) for name in names]
    units = in_space(transform.get("units") or [None] * len(axes), axes, what="'units'")
    size, in_nm = to_nm(in_space(transform["scale"], axes, what="'scale'"), units)
    centre, _ = to_nm(
        in_space(transform.get("translate") or [0.0] * len(axes), axes, what="'translate'"), units
    )
    # COSEM gives the centre of the first voxel; our offset is its corner.
    return Place(
        dialect, size, corner(centre, size), states_offset="translate" in transform, in_nm=in_nm
    )


def _is_transform(value: object) -> TypeGuard[dict]:
    return isinstance(value, dict) and "scale" in value

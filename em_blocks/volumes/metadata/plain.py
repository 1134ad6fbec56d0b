"""Plain attributes: ``voxel_size``, ``resolution``, ``offset``, ``units`` and ``element_size_um``.

They list one value per axis of the array. Without units they are nm, by definition of funlib and
CREMI.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from em_blocks.geometry import Nm3, triple
from em_blocks.volumes.metadata import n5, names
from em_blocks.volumes.metadata.claims import Axes, Place, Stored, in_space
from em_blocks.volumes.metadata.units import to_nm

_NM = ("nm", "nm", "nm")


def places(stored: Stored, axes: Axes) -> Iterator[Place]:
    """Yield the places that the attributes of an array with these axes state.

    Raises
    ------
    ValueError, TypeError
        If their values make no sense.
    """
    found, axes = stored.attributes, _order(stored, axes)
    # N5 writers have `resolution` x first, which is a dialect of its own; funlib's `voxel_size` is
    # z first in N5 too.
    for name in ["voxel_size"] if stored.n5 else ["voxel_size", "resolution"]:
        if found.get(name) is not None:
            yield _place(stored, axes, name)
    if found.get("element_size_um") is not None:
        size, _ = to_nm(in_space(_tail(found["element_size_um"], axes), axes, what="it"), ["um"] * 3)
        yield Place("the attribute 'element_size_um'", size)


def offset(stored: Stored, axes: Axes) -> Iterator[Place]:
    """Yield the place of ``offset``, where it is in nm: beside a voxel size in nm, or none at all."""
    found, axes = stored.attributes, _order(stored, axes)
    if found.get("offset") is None or (stored.n5 and "voxel_size" not in found):
        return
    place, in_nm = to_nm(in_space(_tail(found["offset"], axes), axes, what="it"), _units(stored, axes))
    if in_nm:
        yield Place("the attribute 'offset'", None, place, states_offset=True)


def _place(stored: Stored, axes: Axes, name: str) -> Place:
    values = in_space(_tail(stored.attributes[name], axes), axes, what="it")
    size, in_nm = to_nm(values, _units(stored, axes))
    dialect = f"the attribute '{name}'"
    if name == "resolution" and "downsamplingFactors" in stored.attributes:
        return Place(dialect, _of_level(stored, size), in_nm=in_nm)
    return Place(dialect, size, (0.0, 0.0, 0.0), in_nm=in_nm)


def _of_level(stored: Stored, size: Nm3) -> Nm3:
    """Return `size` times the factors of a level of a pyramid, which Java programs list x first."""
    factors = n5.factors_of(stored)
    if factors is None or (set(factors) != {1.0} and (
        len(set(factors)) > 1 and len(set(size)) > 1
    )):
        raise ValueError(
            "there are 'downsamplingFactors' (x, y, z) beside it, so it may list x or z first"
        )
    return triple(s * f for s, f in zip(size, factors, strict=True))


def _order(stored: Stored, axes: Axes) -> Axes:
    """Return the axes that values are listed by: of the array, unless the file names others."""
    own = names.own_axes(stored)
    return own if own is not None and names.are_axes(own) else axes


def _units(stored: Stored, axes: Axes) -> tuple:
    units = stored.attributes.get("units")
    if not units:
        return _NM
    if isinstance(units, str):
        units = [units] * 3
    return tuple(unit or "nm" for unit in in_space(_tail(units, axes), axes, what="'units'"))


def _tail(values: Any, axes: Axes) -> Any:
    """Return without the value of channels, where the array has none or gives it no axis."""
    if isinstance(values, (list, tuple)) and len(values) == 4 and len(axes) == 3:
        return values[1:]
    return values

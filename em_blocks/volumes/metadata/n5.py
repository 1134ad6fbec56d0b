"""Metadata of Java programs, x first: ``pixelResolution``, ``resolution``, ``downsamplingFactors``.

In attributes of the array, or of a group above it: BDV and Paintera keep the voxel size of the
finest level there, and that of a level is it times its factors. Corners of levels coincide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from em_blocks.geometry import Nm3, triple
from em_blocks.volumes.metadata.claims import Axes, Place, Stored, in_space
from em_blocks.volumes.metadata.units import number, to_nm

_LEVEL = re.compile(r"s(\d+)")
_LISTS_OF_FACTORS = ("downsamplingFactors", "scales")


def places(stored: Stored, axes: Axes) -> Iterator[Place]:
    """Yield the places that the attributes of an array with these axes, and of its groups, state.

    Raises
    ------
    ValueError, TypeError, KeyError
        If they make no sense.
    """
    own = _claim(stored.attributes, axes, stored.n5)
    if own is not None:
        factors = factors_of(stored) if "downsamplingFactors" in stored.attributes else None
        yield _scaled(own, factors, "the attribute '{}'")
    for group in stored.groups:
        found = _claim(group.attributes, axes, stored.n5 or "multiScale" in group.attributes)
        if found is None:
            continue
        factors = factors_of(stored)
        if factors is None and own is not None:
            return
        if factors is None:
            raise ValueError(
                f"{group.path} gives the voxel size of the finest level, but nothing says by which "
                f"factors {group.name} is coarser"
            )
        yield _scaled(found, factors, f"the attribute '{{}}' of {group.path}", coarse=False)
        return  # the nearest group is the one that means this array


def factors_of(stored: Stored) -> Nm3 | None:
    """Return the factors to the finest level, (z, y, x); None where they are not stated."""
    own = stored.attributes.get("downsamplingFactors")
    if own is not None:
        return _factors(own)
    name = stored.source.rstrip("/").rpartition("/")[2]
    level = _LEVEL.fullmatch(name)
    for group in stored.groups:
        for key in _LISTS_OF_FACTORS:
            listed = group.attributes.get(key)
            if level and isinstance(listed, list) and int(level[1]) < len(listed) and all(
                isinstance(one, list) for one in listed
            ):
                return _factors(listed[int(level[1])])
    return (1.0, 1.0, 1.0) if level is None or int(level[1]) == 0 else None


def _factors(values: Any) -> Nm3:
    if isinstance(values, (int, float)):
        values = [values] * 3
    factors = tuple(number(v) for v in values)[:3][::-1]
    if len(factors) != 3 or min(factors) < 1:
        raise ValueError(f"'downsamplingFactors' are {values}, not three factors (x, y, z)")
    return factors


def _claim(attributes: dict, axes: Axes, x_first: bool) -> tuple[str, Place] | None:
    """Return voxel size and offset before factors; ``resolution`` counts only where it is x first."""
    resolution = attributes.get("pixelResolution")
    if isinstance(resolution, dict):
        return "pixelResolution", _place(
            attributes, axes, resolution["dimensions"], [resolution.get("unit")] * 3, x_first
        )
    if resolution is not None:
        return "pixelResolution", _place(attributes, axes, resolution, ["nm"] * 3, x_first)
    if x_first and attributes.get("resolution") is not None:
        units = attributes.get("units") or ["nm"] * 3
        units = [units] * 3 if isinstance(units, str) else [unit or "nm" for unit in units]
        return "resolution", _place(
            attributes, axes, attributes["resolution"], _reversed(units, axes, "'units'"), x_first
        )
    return None


def _place(attributes: dict, axes: Axes, values: object, units: Sequence, x_first: bool) -> Place:
    size, in_nm = to_nm(_reversed(values, axes, "it"), units)
    # funlib's `offset` is z first, and not of this dialect.
    given = attributes.get("offset") if x_first and "voxel_size" not in attributes else None
    place, _ = to_nm(_reversed(given or [0.0] * 3, axes, "'offset'"), units)
    return Place("", size, place, states_offset=given is not None, in_nm=in_nm)


def _reversed(values: object, axes: Axes, what: str) -> tuple:
    """Return values (x, y, z), or x first with all axes, as (z, y, x)."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{what} is {values!r} instead of a list of three")
    if len(values) == 4 and len(axes) == 3:
        values = values[:3]  # behind it, what belongs to channels
    return in_space(values[::-1], axes, what=what)


def _scaled(
    found: tuple[str, Place], factors: Nm3 | None, dialect: str, *, coarse: bool = True
) -> Place:
    """Return the place of a level. Some programs write the level's own size beside its factors."""
    name, place = found
    size = place.voxel_size or (1.0, 1.0, 1.0)
    if factors is None:
        factors = (1.0, 1.0, 1.0)
    return Place(
        dialect.format(name), triple(s * f for s, f in zip(size, factors, strict=True)),
        place.offset, size if coarse else None, place.states_offset, place.in_nm,
    )

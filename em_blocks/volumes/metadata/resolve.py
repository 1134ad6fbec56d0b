"""Resolution of all metadata of an array, and of the config, to one answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from em_blocks.config import VolumeInput
from em_blocks.errors import GeometryError, VolumeError
from em_blocks.geometry import Frame, Nm3, triple
from em_blocks.volumes.metadata import cosem, n5, names, ngff, plain
from em_blocks.volumes.metadata.claims import SPACE, Axes, Claims, Place, Problem, Stored

_LOG = logging.getLogger(__name__)
_NONSENSE = (TypeError, ValueError, KeyError, IndexError, AttributeError, GeometryError)
_SAME_SIZE = 1e-4
"""Relative difference of voxel sizes that are one: some are stored in 32 bits."""
_SAME_PLACE_VOXELS = 0.501
"""Half a voxel: writers disagree whether positions are centres or corners."""


class Resolved(NamedTuple):
    """Axes and place of an array.

    Attributes
    ----------
    axes : tuple of str
        As numpy shows the array: of t, c, z, y, x.
    frame : Frame or None
        Where its voxels lie; None if nothing says it.
    named : bool
        Whether something names the axes, or they are the usual ones.
    """

    axes: Axes
    frame: Frame | None
    named: bool


def resolve(stored: Stored, told: VolumeInput | None = None, *, optional: bool = False) -> Resolved:
    """Weigh all metadata of an array, and what a config tells of it.

    Parameters
    ----------
    told : VolumeInput, optional
        Its values win, with a warning where the metadata say something else.
    optional : bool
        Whether an array may not say how large its voxels are.

    Raises
    ------
    VolumeError
        If the metadata contradict each other or make no sense, the axes are not those of a volume,
        or (unless `optional`) the voxel size is not said: a guess would move every result.
    """
    told = told or VolumeInput(path=stored.source)
    axes, named = resolve_axes(stored, told.axes)
    claims = _places(stored, axes)
    for problem in claims.problems:
        _refuse(stored, problem, told)
    size = _size(stored, claims.places, told)
    _warn_of_differences(stored, claims.places, told)
    if size is not None:
        frame = _frame(stored, size, _offset(stored, claims.places, size, told))
        return Resolved(axes, frame, named)
    if optional and all(place.in_nm for place in claims.places):
        return Resolved(axes, None, named)
    raise VolumeError(_unsaid(stored, claims.places))


# -- axes ------------------------------------------------------------------------------------


def resolve_axes(stored: Stored, told: Axes | None = None) -> tuple[Axes, bool]:
    """Return the axes of an array, and whether something names them or they are the usual ones.

    Raises
    ------
    VolumeError
        As `resolve`.
    """
    if told is not None:
        _check_told(stored, told)
        return told, True
    claims = _names(stored)
    for problem in claims.problems:
        raise VolumeError(
            f"The axes of {stored.source} cannot be understood: {problem.dialect} ({problem.reason}). "
            "Correct them, or say them in the config: "
            f'{{"path": "{stored.source}", "axes": ["z", "y", "x"]}}.'
        )
    if not claims.axes:
        return _usual(stored), False
    return _named(stored, claims), True


def _names(stored: Stored) -> Claims:
    claims = Claims()
    for dialect, found in [
        ("the names of its axes", names.named_axes), ("the attribute 'transform'", cosem.named_axes),
        ("the OME-NGFF multiscales around it", ngff.named_axes),
    ]:
        with _problems_of(claims, dialect):
            claims.axes.update(found(stored))
    return claims


def _check_told(stored: Stored, told: Axes) -> None:
    if len(told) != len(stored.shape):
        raise VolumeError(
            f"The key 'axes' of {stored.source} names {list(told)}, but the array has "
            f"{len(stored.shape)} axes {tuple(stored.shape)}. Name each of them, the slowest first."
        )


def _named(stored: Stored, claims: Claims) -> Axes:
    (first, axes), *others = claims.axes.items()
    for other, found in others:
        if found != axes:
            raise _contradiction(stored, "axes", (first, list(axes)), (other, list(found)))
    if not names.are_axes(axes):
        raise VolumeError(
            f"The axes of {stored.source} are {list(axes)} in {first}, but a volume has z, y and "
            "x, each once, and perhaps c and t. Choose another array; if the names are wrong, say "
            f'the right ones in the config: {{"path": "{stored.source}", "axes": [...]}}.'
        )
    return axes


def _usual(stored: Stored) -> Axes:
    """Return the order where nothing names the axes; single entries before or behind are no space."""
    shape = stored.shape
    if len(shape) == 5 and shape[0] == 1:
        return ("t", *_usual(replace(stored, shape=shape[1:])))
    if len(shape) not in (3, 4):
        raise VolumeError(
            f"{stored.source} has {len(shape)} axes {tuple(shape)}, but a volume has three (z, y, x), "
            "or four with channels first (c, z, y, x). Nothing names its axes; if they are others, say "
            f'it in the config: {{"path": "{stored.source}", "axes": ["t", "c", "z", "y", "x"]}}.'
        )
    if len(shape) == 3:
        return SPACE
    return (*SPACE, "c") if shape[-1] == 1 < shape[0] else ("c", *SPACE)


# -- places ----------------------------------------------------------------------------------


def _places(stored: Stored, axes: Axes) -> Claims:
    claims = Claims()
    for dialect, found in [
        ("info", _precomputed),
        ("the attribute 'voxel_size', 'resolution' or 'element_size_um'", plain.places),
        # Before those that give centres: what is computed from them is not exact.
        ("the attribute 'offset'", plain.offset),
        ("the attribute 'transform'", cosem.places),
        ("the OME-NGFF multiscales around it", ngff.places),
        ("the attribute 'pixelResolution', 'resolution' or 'downsamplingFactors'", n5.places),
    ]:
        with _problems_of(claims, dialect):
            claims.places.extend(_sound(found(stored, axes)))
    return claims


def _precomputed(stored: Stored, axes: Axes) -> Iterator[Place]:
    if stored.scale is not None:
        size = stored.scale["resolution"][::-1]
        voxels = stored.scale.get("voxel_offset", [0, 0, 0])[::-1]
        yield Place("info", triple(map(float, size)),
                    triple(float(o * s) for o, s in zip(voxels, size, strict=True)), states_offset=True)


def _sound(places: Iterator[Place]) -> Iterator[Place]:
    for place in places:
        if place.voxel_size is not None:
            Frame(place.voxel_size, place.offset or (0.0, 0.0, 0.0))  # raises GeometryError
        yield place


@contextmanager
def _problems_of(claims: Claims, dialect: str) -> Iterator[None]:
    """Keep what is wrong with a dialect for later, when it is known to matter."""
    try:
        yield
    except _NONSENSE as error:
        claims.problems.append(Problem(dialect, f"{type(error).__name__}: {error}"))


def _refuse(stored: Stored, problem: Problem, told: VolumeInput) -> None:
    """Raise `VolumeError` unless the config tells what cannot be understood."""
    if told.offset is not None if "'offset'" in problem.dialect else told.voxel_size is not None:
        return
    raise VolumeError(
        f"The attributes of {stored.source} that tell where its voxels lie cannot be understood: "
        f"{problem.dialect} ({problem.reason}). Correct them - the plainest form is "
        '"voxel_size": [z, y, x] and "offset": [z, y, x], both in nm - or say in the config what is '
        f"right: {place_in_config(stored.source)}."
    )


def _size(stored: Stored, places: list[Place], told: VolumeInput) -> Nm3 | None:
    if told.voxel_size is not None:
        return told.voxel_size
    found = _sizes(places)
    if not found:
        return None
    # One that can mean two things is what another one says.
    first, size = next((one for one in found if one[0].other_size is None), found[0])
    for other, stated in found:
        if not any(_one_size(size, meant) for meant in (stated, other.other_size or stated)):
            raise _contradiction(
                stored, "voxel_size", (first.dialect, list(size)), (other.dialect, list(stated))
            )
    return size


def _offset(stored: Stored, places: list[Place], size: Nm3, told: VolumeInput) -> Nm3:
    if told.offset is not None:
        return told.offset
    stated = _stated(places)
    for dialect, offset in stated[1:]:
        if not _one_place(stated[0][1], offset, size):
            raise _contradiction(
                stored, "offset", (stated[0][0], list(stated[0][1])), (dialect, list(offset))
            )
    if stated:
        return stated[0][1]
    # Without one, the first voxel lies at the origin: by its corner, or in some dialects its centre.
    for place in places:
        if place.offset is not None and place.voxel_size is not None:
            return triple(
                o / s * v for o, s, v in zip(place.offset, place.voxel_size, size, strict=True)
            )
    return (0.0, 0.0, 0.0)


def _sizes(places: list[Place]) -> list[tuple[Place, Nm3]]:
    return [(p, p.voxel_size) for p in places if p.voxel_size is not None and p.in_nm]


def _stated(places: list[Place]) -> list[tuple[str, Nm3]]:
    """Return the offsets that are written down, with their dialects."""
    return [
        (p.dialect, p.offset) for p in places
        if p.states_offset and p.offset is not None and p.in_nm
    ]


def _frame(stored: Stored, size: Nm3, offset: Nm3) -> Frame:
    try:
        return Frame(size, offset)
    except GeometryError as error:
        raise VolumeError(f"{stored.source} cannot be placed in the world: {error}.") from error


def _one_size(one: Nm3, other: Nm3) -> bool:
    return all(abs(a - b) <= _SAME_SIZE * max(a, b) for a, b in zip(one, other, strict=True))


def _one_place(one: Nm3, other: Nm3, size: Nm3) -> bool:
    return all(
        abs(a - b) <= _SAME_PLACE_VOXELS * v for a, b, v in zip(one, other, size, strict=True)
    )


def place_in_config(path: str) -> str:
    """Return the config entry of a volume that does not state its place; for messages."""
    return f'{{"path": "{path}", "voxel_size": [z, y, x], "offset": [z, y, x]}} (nm)'


# -- what is said ----------------------------------------------------------------------------


def _warn_of_differences(stored: Stored, places: list[Place], told: VolumeInput) -> None:
    """Warn once of everything that the config states differently from the metadata."""
    differences = []
    checks: list[tuple[str, Any, Iterable[tuple[str, Any]], Callable[[Any, Any], bool]]] = [
        ("axes", told.axes, _names(stored).axes.items() if told.axes else [], tuple.__eq__),
        ("voxel_size", told.voxel_size, [(p.dialect, size) for p, size in _sizes(places)], _one_size),
        ("offset", told.offset, _stated(places), _exactly),
    ]
    for key, ours, theirs, same in checks:
        if ours is not None:
            differences += [
                f"{key} {list(ours)} instead of {list(value)} in {dialect}"
                for dialect, value in theirs if not same(ours, value)
            ][:1]
    if differences:
        _warn(f"The config overrides the metadata of {stored.source}: "
              f"{'; '.join(differences)} (zyx; lengths in nm).")


def _exactly(one: Nm3, other: Nm3) -> bool:
    return all(abs(a - b) <= 1e-6 * max(1.0, abs(a)) for a, b in zip(one, other, strict=True))


@cache
def _warn(message: str) -> None:
    """Warn once, however often a volume is opened."""
    _LOG.warning(message)


def _contradiction(stored: Stored, key: str, one: tuple, other: tuple) -> VolumeError:
    return VolumeError(
        f"The metadata of {stored.source} contradict each other: {key} is {one[1]} in {one[0]}, but "
        f"{other[1]} in {other[0]} (zyx; lengths in nm). One of them is wrong, and every position "
        "would be. Correct it, or say in the config what is right: "
        f'{{"path": "{stored.source}", "{key}": [...]}}.'
    )


def _unsaid(stored: Stored, places: list[Place]) -> str:
    without = [
        f"{list(p.voxel_size)} (zyx) in {p.dialect} has no unit of length"
        for p in places if not p.in_nm and p.voxel_size is not None
    ]
    found = "; ".join(without) or (
        "it has none of the attributes voxel_size, resolution, transform, pixelResolution, "
        "element_size_um, and no OME-NGFF multiscales in its groups"
    )
    return (
        f"{stored.source} does not say how large its voxels are: {found}. Without it no position in nm "
        f"is right; say it in the config: {place_in_config(stored.source)}, or add the attributes "
        '"voxel_size": [z, y, x] (nm) and "offset": [z, y, x] (nm) to the array.'
    )

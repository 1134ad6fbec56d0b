"""Units of length, in all spellings that writers use."""

from __future__ import annotations

import math
from collections.abc import Sequence

from em_blocks.geometry import Nm3, triple

_PREFIXES = {
    ("pico", "p"): 1e-3, ("nano", "n"): 1.0, ("micro", "u", "µ", "μ"): 1e3, ("milli", "m"): 1e6,
    ("centi", "c"): 1e7, ("deci", "d"): 1e8, ("", ""): 1e9, ("kilo", "k"): 1e12,
}
_TO_NM = {
    spelling: factor
    for (word, *letters), factor in _PREFIXES.items()
    for spelling in [
        *(f"{letter}m" for letter in letters),
        *(f"{word}{metre}" for metre in ("meter", "meters", "metre", "metres")),
    ]
} | dict.fromkeys(["micron", "microns"], 1e3) | dict.fromkeys(
    ["angstrom", "angstroms", "ångström", "ångstrom", "å", "\u212b"], 0.1
)
_NO_UNITS = ("", "pixel", "pixels", "px", "voxel", "voxels", "none", "null")


def nm_per(unit: object) -> float | None:
    """Return length of a unit, nm; None for what is no unit (missing, or pixels).

    Raises
    ------
    ValueError
        If the unit is not one of length.
    """
    if unit is None:
        return None
    name = unit.strip().lower() if isinstance(unit, str) else unit
    if name in _NO_UNITS:
        return None
    if name not in _TO_NM:
        raise ValueError(f"the unit {unit!r} is unknown; nm, um, mm, m and angstrom are known")
    return _TO_NM[name]


def to_nm(values: Sequence, units: Sequence) -> tuple[Nm3, bool]:
    """Return lengths in nm, and whether all have units.

    Raises
    ------
    ValueError, TypeError
        If a value is no number, or a unit is unknown.
    """
    factors = [nm_per(unit) for unit in units]
    known = None not in factors
    return triple(
        number(v) * (f if known and f else 1.0) for v, f in zip(values, factors, strict=True)
    ), known


def number(value: object) -> float:
    """Return a finite number of JSON; ValueError for all else, true and text included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)

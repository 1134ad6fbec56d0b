"""Files of skeletons, and the units of their positions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat

from em_blocks.config import VoxelSize

SkeletonUnit = Literal["nm", "um"] | PositiveFloat | VoxelSize
"""A name, nm per unit, or nm per unit (z, y, x) for positions in voxels."""

NAMES = {"nm": 1.0, "um": 1000.0}


def nm_per_unit(unit: SkeletonUnit) -> float | tuple[float, float, float]:
    """Return nm per unit of positions, for all axes or (z, y, x)."""
    return NAMES[unit] if isinstance(unit, str) else unit


def swc_files(path: Path) -> list[Path]:
    """Return the SWC files of a folder by name, or the one that `path` is."""
    if not path.is_dir():
        return [path]
    # Names with a leading dot are remains of other systems, not neurons.
    return sorted(p for p in path.iterdir() if p.suffix.lower() == ".swc" and p.name[0] != ".")

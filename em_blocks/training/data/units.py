"""World units of gunpowder graphs: tenths of a nm.

gunpowder's coordinates are integers, and voxel sizes such as 4.6 nm are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import gunpowder as gp
import numpy as np

from em_blocks.errors import GeometryError
from em_blocks.training.data.alignment import VOXEL_SIZE_TOLERANCE

UNITS_PER_NM = 10


def world(nm: Sequence[float]) -> gp.Coordinate:
    """Convert lengths in nm to world units.

    Raises
    ------
    GeometryError
        If a length is not a whole number of tenths of a nm.
    """
    units = [round(length * UNITS_PER_NM) for length in nm]
    if not np.allclose(units, np.asarray(nm) * UNITS_PER_NM):
        near = tuple(unit / UNITS_PER_NM for unit in units)
        advice = (
            f"Set `voxel_size` of the setup to {near}: within 1 %, and the data stay as they are."
            if np.allclose(near, nm, rtol=VOXEL_SIZE_TOLERANCE, atol=0)
            else "Resample the data to such a size; rounding would change it by more than 1 %."
        )
        raise GeometryError(
            f"The voxel size {tuple(nm)} nm (zyx) is not a whole number of tenths of a nm, in which a "
            f"training counts places. {advice}"
        )
    return gp.Coordinate(units)

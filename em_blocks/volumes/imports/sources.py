"""Common parts of all sources of voxels (image stack, HDF5).

A source is a config model with ``header(told)``, ``check()``, ``identity()`` and ``open()``, and
the constant ``whole_sections``: whether a piece of a section costs as much as all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Box, Nm3, Triple

ReadBox = Callable[[Box], np.ndarray]
"""Reads the voxels (z, y, x) of a box."""


USUAL_CHUNK = (64, 64, 64)
"""Voxels (z, y, x) that are best read together where nothing is stored in chunks."""


class SourceHeader(NamedTuple):
    """Metadata of a source, known before its voxels are read."""

    shape: Triple  # voxels (z, y, x)
    dtype: np.dtype
    voxel_size: Nm3 | None = None  # nm (z, y, x); None where the source does not say
    offset: Nm3 | None = None  # nm (z, y, x); None where the source does not say
    chunk_shape: Triple | None = None  # voxels (z, y, x); None where there are no chunks

"""The table of features of whole objects, from the measures of their parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.geometry import Frame, Triple
from em_blocks.kernels.components.object_measures import Measures, merge_measures
from em_blocks.kernels.objects.grey import grey_features
from em_blocks.kernels.objects.moments import MomentParts, covariances, shapes_of, shifted
from em_blocks.kernels.objects.surface import face_area, smooth_area
from em_blocks.volumes.stores.tables import Columns


def table_of_features(parts: Sequence[Columns], frame: Frame, shape: Triple) -> Columns:
    """Return one row per object, by ascending id.

    Parameters
    ----------
    parts : sequence of columns
        As `measured_parts` returns them, of all blocks in any order.
    frame : Frame
    shape : (3,) int
        Of the region, voxels (z, y, x).
    """
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    pieces = Measures(**{name: joined[name] for name in Measures._fields})
    whole = merge_measures([pieces])
    member = np.searchsorted(whole.id, pieces.id)
    table = _basic(whole, frame, shape)
    if "second" in joined:
        table |= _shape(pieces, joined["second"], whole, member, frame)
    if "exits" in joined:
        exits = _summed(joined["exits"], member, len(whole.id))
        table |= _surface(exits, table["volume_nm3"], frame)
    if "histogram" in joined:
        table |= grey_features(*(
            _summed(joined[name], member, len(whole.id)) for name in ("histogram", "contrast")
        ))
    return table


def _basic(whole: Measures, frame: Frame, shape: Triple) -> Columns:
    size, offset = np.array(frame.voxel_size), np.array(frame.offset)
    centroid = offset + (whole.sums / whole.voxels[:, None] + 0.5) * size
    at_border = ((whole.begin == 0) | (whole.end == np.array(shape))).any(axis=1)
    return {
        "id": whole.id.astype(np.uint64), "voxels": whole.voxels,
        "volume_nm3": whole.voxels * float(size.prod()),
        **_by_axis("centroid_{}_nm", centroid),
        **_by_axis("box_{}0_nm", offset + whole.begin * size),
        **_by_axis("box_{}1_nm", offset + whole.end * size),
        "at_border": at_border,
    }


def _shape(
    pieces: Measures, second: np.ndarray, whole: Measures, member: np.ndarray, frame: Frame
) -> Columns:
    first = pieces.sums - pieces.voxels[:, None] * pieces.begin
    parts = shifted(
        MomentParts(pieces.voxels, first, second), pieces.begin - whole.begin[member]
    )
    found = shapes_of(covariances(parts, member, len(whole.id)), np.array(frame.voxel_size))
    major, middle, minor = found.axes.T
    return {
        "gyration_radius_nm": found.gyration_radius, "axis_major_nm": major,
        "axis_middle_nm": middle, "axis_minor_nm": minor, **_by_axis("major_{}", found.major),
        "elongation": 1 - middle / major, "flatness": 1 - minor / middle,
    }


def _surface(exits: np.ndarray, volume: np.ndarray, frame: Frame) -> Columns:
    area = smooth_area(exits, frame.voxel_size)
    return {
        "surface_faces_nm2": face_area(exits, frame.voxel_size), "surface_nm2": area,
        "sphericity": np.cbrt(np.pi) * np.cbrt(6 * volume) ** 2 / area,
        "surface_to_volume_per_nm": area / volume,
    }


def _by_axis(name: str, values: np.ndarray) -> Columns:
    return {name.format(axis): values[:, n] for n, axis in enumerate("zyx")}


def _summed(values: np.ndarray, member: np.ndarray, n: int) -> np.ndarray:
    found = np.zeros((n, values.shape[1]), np.int64)
    np.add.at(found, member, values)
    return found

"""How the levels of a pyramid follow from voxel size and shape."""

from __future__ import annotations

from em_blocks.geometry import Nm3, Triple, triple


def next_factors(voxel_size: tuple[float, float, float], shape: Triple) -> Triple:
    """By how much the next level is coarser: 2 or 1 along each axis, towards isotropic voxels.

    Halved are those of the shortest axes that leave the voxels most nearly isotropic, all axes where
    nothing is won: 40 x 4 x 4 nm goes by 40 x 8 x 8 and 40 x 16 x 16 to 40 x 32 x 32, and from there
    on all axes are halved. An axis of one voxel is left alone.

    Parameters
    ----------
    voxel_size : (3,) float
        nm (z, y, x).
    shape : (3,) int
        Voxels (z, y, x).

    Returns
    -------
    (3,) int
        (1, 1, 1) for a single voxel.
    """
    axes = sorted((axis for axis in range(3) if shape[axis] > 1), key=lambda axis: voxel_size[axis])
    choices = [axes[: n + 1] for n in range(len(axes))]

    def anisotropy(halved: list[int]) -> float:
        sizes = [voxel_size[axis] * (1 + (axis in halved)) for axis in axes]
        return max(sizes) / min(sizes)

    best = min(reversed(choices), key=anisotropy, default=[])
    return triple(1 + (axis in best) for axis in range(3))


def pyramid_factors(
    voxel_size: Nm3, shape: Triple, *, levels: int | None, smallest: Triple
) -> list[Triple]:
    """Factors of all levels above the full resolution, each relative to the one below.

    Parameters
    ----------
    levels : int or None
        How many; None: until a level is no larger than `smallest` along every axis.
    smallest : (3,) int
        Voxels (z, y, x), usually one chunk.
    """
    found: list[Triple] = []
    while len(found) != levels and max(shape) > 1:
        if levels is None and all(n <= s for n, s in zip(shape, smallest, strict=True)):
            break
        factors = next_factors(voxel_size, shape)
        found.append(factors)
        voxel_size = triple(v * f for v, f in zip(voxel_size, factors, strict=True))
        shape = triple(-(-n // f) for n, f in zip(shape, factors, strict=True))
    return found

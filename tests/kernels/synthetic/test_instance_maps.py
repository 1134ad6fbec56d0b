"""Maps as networks predict them: what is sure, what is not, and no box changes them."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.synthetic.instance_maps import Quality, instance_maps, maps_context
from em_blocks.kernels.synthetic.mitochondria import grow_mitochondria, paint_mitochondria

EXACT = Quality(blur_nm=0.001, widen_nm=0.0, noise=0.0)


def balls(voxel_size, shape=(15, 90, 120)):
    """Two half balls that touch along a plane across x, and one alone."""
    z, y, x = (
        (np.arange(n) + 0.5) * step - n * step / 2
        for n, step in zip(shape, voxel_size, strict=True)
    )
    labels = np.zeros(shape, np.uint64)
    inside = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + (x + 150) ** 2) < 200
    labels[inside] = 5
    labels[inside & (x > -150)] = 2**40
    labels[np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + (x - 250) ** 2) < 120] = 7
    return labels


@pytest.mark.parametrize("voxel_size", [(30, 8, 8), (8, 8, 8), (40, 4.6, 4.6)])
def test_maps_of_a_perfect_network_are_the_truth(voxel_size):
    labels = balls(voxel_size)
    maps = instance_maps(labels, voxel_size=voxel_size, seed=1, quality=EXACT)
    np.testing.assert_array_equal(maps.foreground > 0.5, labels > 0)
    inside = (maps.signed_distance > 0) & (labels > 0)
    assert inside.sum() == (labels > 0).sum()
    assert (maps.signed_distance[labels == 0] == 0).all()


def test_contours_follow_outlines_and_the_plane_between_two():
    labels = balls((30, 8, 8))
    contour = instance_maps(labels, voxel_size=(30, 8, 8), seed=1, quality=EXACT).contour > 0.5
    middle, (row, at) = labels[7], (45, int(np.argmax(labels[7, 45] == 2**40)))
    assert contour[7, row, at - 2: at + 2].all() and not contour[7, row, at - 3]
    edge = (middle > 0) ^ ndimage.binary_erosion(middle > 0)
    assert contour[7][edge].all()
    deep = ndimage.binary_erosion(middle == 7, iterations=3)
    assert not contour[7][deep].any() and deep.any()


def test_predicted_maps_are_blurred_widened_and_noisy():
    labels, voxel_size = balls((30, 8, 8)), (30, 8, 8)
    exact, usual = (instance_maps(labels, voxel_size=voxel_size, seed=1, quality=quality)
                    for quality in (EXACT, Quality()))
    assert (usual.foreground > 0.5).sum() > 1.05 * (labels > 0).sum()
    unsure = [np.mean((m.foreground > 0.1) & (m.foreground < 0.9)) for m in (exact, usual)]
    assert unsure[0] == 0 and unsure[1] > 0.02
    far = ndimage.distance_transform_edt(labels == 0, voxel_size) > 80
    assert usual.foreground[far].std() > 0.005 and exact.foreground[far].std() == 0
    for values in usual:
        assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1


def test_contours_between_two_have_gaps_and_others_have_none():
    shape, voxel_size = (40, 120, 60), (30, 8, 8)
    labels = np.zeros(shape, np.uint64)
    labels[:, 8:-8, 8:30], labels[:, 8:-8, 30:52] = 1, 2
    contour = instance_maps(labels, voxel_size=voxel_size, seed=3).contour[:, 20:-20]
    between, beside = contour[:, :, 28:32].max(-1), contour[:, :, 6:10].max(-1)
    assert (between < 0.5).mean() > 0.01 and (beside < 0.5).mean() < 0.25 * (between < 0.5).mean()
    assert (between > 0.5).mean() > 0.6


@pytest.mark.parametrize("voxel_size", [(30, 8, 8), (16, 16, 16)])
def test_a_box_with_its_context_gets_the_maps_of_the_whole_volume(voxel_size):
    shape = (24, 100, 110) if voxel_size[0] == 30 else (50, 60, 64)
    grown = grow_mitochondria(np.multiply(shape, voxel_size), seed=2, per_um3=8)
    labels = paint_mitochondria(grown, (0, 0, 0), shape, voxel_size=voxel_size)
    context = maps_context(voxel_size)
    whole = instance_maps(labels, voxel_size=voxel_size, seed=2)
    seen = tuple(slice(3, 3 + 2 * c + 6) for c in context)
    part = instance_maps(labels[seen], voxel_size=voxel_size, begin=(3, 3, 3), seed=2)
    for one, other in zip(part, whole, strict=True):
        inner = tuple(slice(c, -c) for c in context)
        np.testing.assert_array_equal(one[inner], other[seen][inner])


def test_the_context_covers_blur_and_distances_but_not_across_thick_sections():
    assert maps_context((30, 8, 8), Quality(blur_nm=10)) == (3, 18, 18)
    assert maps_context((8, 8, 8), Quality(blur_nm=10)) == (18, 18, 18)

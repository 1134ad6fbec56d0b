"""Depth in a mask: that of a distance transform, and the same in every box that is large enough."""

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.kernels.instances.depth import depth_reach, is_deep

VOXEL = (30.0, 8.0, 4.6)


def mask_of(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((12, 26, 30)), (1, 3, 4))
    return smooth > np.quantile(smooth, 0.4)


@pytest.mark.parametrize("depth_nm", [4.6, 8.0, 20.0, 31.0, 45.3])
def test_deep_voxels_are_those_of_a_distance_transform(depth_nm):
    mask = mask_of(0)
    distance = ndimage.distance_transform_edt(mask, sampling=VOXEL)
    found = is_deep(mask, depth_nm, VOXEL)
    np.testing.assert_array_equal(found, distance >= depth_nm - 1e-6)
    assert 0 < found.sum() < mask.sum() + (depth_nm == 4.6)


def test_a_depth_that_is_reached_exactly_counts():
    mask = np.ones((1, 1, 9), bool)
    mask[0, 0, 0] = False
    assert is_deep(mask, 3 * 4.6, VOXEL)[0, 0].tolist() == [False] * 3 + [True] * 6


def test_a_box_with_the_reach_around_tells_the_same():
    mask, depth_nm = mask_of(1), 33.0
    reach = depth_reach(depth_nm, VOXEL)
    assert reach == (2, 5, 8)
    whole = is_deep(mask, depth_nm, VOXEL)
    part = is_deep(mask[3:11, 4:20, 2:28], depth_nm, VOXEL)
    np.testing.assert_array_equal(part[2:-2, 5:-5, 8:-8], whole[5:9, 9:15, 10:20])

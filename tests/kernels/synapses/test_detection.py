import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from em_blocks.kernels.synapses.detection import (
    DetectionRule,
    SplitRule,
    detect,
    direction_vectors_of,
    largest_not_above,
)

VOXEL_SIZES = [(40.0, 4.0, 4.0), (40.0, 4.6, 4.6), (8.0, 8.0, 8.0)]
SCORES, SITES = ("sum", "mean", "max", "count"), ("edt", "centroid", "peak")
voxel_sizes, seeds = st.sampled_from(VOXEL_SIZES), st.integers(0, 10**6)


def blobs(seed, shape=(7, 12, 13), dtype=np.uint8):
    """A smooth random map with blobs of all sizes, as stored with scale 255 or, if float, 1."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.random(shape), rng.uniform(0, 2.5))
    values = (values - values.min()) / np.ptp(values)
    return (values * 255).round().astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def border_distance(component, voxel_size):
    """Distance of voxels to the faces of a component, by a transform on the doubled grid."""
    grown = np.pad(component, 1)
    inside = np.ones([2 * n - 1 for n in grown.shape], bool)
    for axis in range(3):
        between = [slice(None, None, 2)] * 3
        between[axis] = slice(1, None, 2)
        inside[tuple(between)] = ~np.diff(grown, axis=axis)
    distance = ndimage.distance_transform_edt(inside, sampling=np.array(voxel_size) / 2)
    return distance[2:-2:2, 2:-2:2, 2:-2:2]


def first_of_best(voxels, quality):
    """The first voxel of those that are best, up to rounding."""
    return voxels[np.flatnonzero(np.isclose(quality, quality.max(), rtol=1e-9, atol=1e-9))[0]]


def to_center(voxels, voxel_size):
    return np.linalg.norm((voxels - voxels.mean(axis=0)) * voxel_size, axis=1)


def site_of(component, values, kind, voxel_size):
    voxels = np.argwhere(component)
    if kind == "edt":
        return first_of_best(voxels, border_distance(component, voxel_size)[component])
    if kind == "peak":
        voxels = voxels[values[component] == values[component].max()]
    return first_of_best(voxels, -to_center(voxels, voxel_size))


def detected_slowly(values, labels, rule, voxel_size):
    """Rows of (site, score, size, voxels) from dense labels and values in units of the output."""
    rows = []
    for label in range(1, labels.max() + 1):
        component = labels == label
        own = values[component]
        score = {"sum": own.sum(), "mean": own.mean(), "max": own.max(), "count": len(own)}[rule.score]
        limits = rule.min_size <= len(own) <= (rule.max_size or len(own))
        if limits and (rule.min_score is None or score > rule.min_score):
            site = site_of(component, values, rule.site, voxel_size)
            rows.append((tuple(site), score, len(own), np.flatnonzero(component)))
    return rows


def assert_same(found, rows):
    assert [tuple(site) for site in found.site] == [row[0] for row in rows]
    np.testing.assert_allclose(found.score, [row[1] for row in rows], rtol=1e-9)
    assert found.size.tolist() == [row[2] for row in rows]
    for i, row in enumerate(rows):
        assert np.array_equal(found.voxels[found.starts[i] : found.starts[i + 1]], row[3])


@given(seeds, st.sampled_from([np.uint8, np.float32, np.float64]), voxel_sizes, st.floats(0.2, 0.9),
       st.sampled_from(SCORES), st.sampled_from(SITES), st.integers(1, 9))
def test_components_are_those_of_dense_labels(seed, dtype, voxel_size, threshold, score, site, min_size):
    stored = blobs(seed, dtype=dtype)
    scale = 255 if dtype == np.uint8 else 1
    rule = DetectionRule(threshold, site=site, score=score, min_size=min_size, max_size=300)
    values = stored.astype(float) / scale
    labels, _ = ndimage.label(values > threshold)
    found = detect(stored, scale=scale, rule=rule, voxel_size=voxel_size)
    assert_same(found, detected_slowly(values, labels, rule, voxel_size))
    for begin, end, box in zip(found.begin, found.end, boxes_of(found), strict=True):
        assert [*zip(begin, end, strict=True)] == [(s.start, s.stop) for s in box]


def boxes_of(found):
    labels = np.zeros(found.shape, int)
    labels.ravel()[found.voxels] = np.repeat(np.arange(len(found)) + 1, found.size)
    return ndimage.find_objects(labels)


@given(seeds, st.sampled_from([np.uint8, np.float32]), voxel_sizes, st.sampled_from(SITES),
       st.tuples(st.integers(1, 90), *[st.integers(1, 40)] * 2))
def test_maxima_are_those_of_a_dense_maximum_filter(seed, dtype, voxel_size, site, radius_nm):
    stored = blobs(seed, dtype=dtype)
    if dtype == np.uint8:
        stored = stored // 8 * 8 + 7  # plateaus, also of the largest value
    scale = 255 if dtype == np.uint8 else 1
    radius = np.maximum(np.array(radius_nm) / voxel_size, 1)
    reach = [np.arange(-int(r), int(r) + 1) / r for r in radius]
    footprint = sum(a**2 for a in np.meshgrid(*reach, indexing="ij")) <= 1 + 1e-9
    largest = ndimage.maximum_filter(stored, footprint=footprint, mode="constant", cval=0)
    values = stored.astype(float) / scale
    labels, _ = ndimage.label((stored == largest) & (values > 0.5))
    rule = DetectionRule(0.5, method="maxima", site=site, score="max", radius_nm=radius_nm)
    found = detect(stored, scale=scale, rule=rule, voxel_size=voxel_size)
    assert_same(found, detected_slowly(values, labels, rule, voxel_size))


RULES = [
    *(DetectionRule(0.55, site=site, score=score) for site in SITES for score in SCORES),
    DetectionRule(0.4, split=SplitRule(8.0, 4)),
    DetectionRule(0.4, site="peak", split=SplitRule(20.0, 1), min_size=3),
    DetectionRule(0.3, method="maxima", score="max", radius_nm=(40, 10, 10)),
    DetectionRule(0.3, method="maxima", score="max", site="centroid", radius_nm=(80, 12, 6)),
]


@settings(max_examples=25)
@given(seeds, voxel_sizes, st.tuples(*[st.integers(0, 5)] * 6),
       st.sampled_from([np.uint8, np.float32]))
def test_complete_sites_are_the_same_wherever_the_array_lies_in_a_larger_one(
    seed, voxel_size, margins, dtype
):
    larger = blobs(seed, (11, 20, 21), dtype=dtype)
    begin = np.array(margins[:3])
    end = np.array(larger.shape) - margins[3:]
    part = larger[tuple(slice(*ends) for ends in zip(begin, end, strict=True))]
    scale = 255 if dtype == np.uint8 else 1
    vectors = np.random.default_rng(seed).normal(size=(3, *larger.shape)).astype(np.float32)
    own = vectors[(slice(None), *(slice(*ends) for ends in zip(begin, end, strict=True)))]
    for rule in RULES:
        whole = detect(larger, scale=scale, rule=rule, voxel_size=voxel_size)
        cut = detect(part, scale=scale, rule=rule, voxel_size=voxel_size)
        rows = {
            (*site, score, size, *vector)
            for site, score, size, vector in zip(
                whole.site, whole.score, whole.size,
                direction_vectors_of(whole, vectors, scale=1, how="mean"), strict=True,
            )
        }
        means = direction_vectors_of(cut, own, scale=1, how="mean")
        for i in np.flatnonzero(cut.complete):  # equal to the last bit
            assert (*(cut.site[i] + begin), cut.score[i], cut.size[i], *means[i]) in rows
        # And none is missing: what the part sees as a whole, it finds.
        seen = ((whole.begin > begin) & (whole.end < end)).all(axis=1)
        assert np.count_nonzero(seen) == np.count_nonzero(cut.complete)


@pytest.mark.parametrize("side", range(2))
@pytest.mark.parametrize("axis", range(3))
def test_a_component_at_a_border_is_not_complete(axis, side):
    stored = np.zeros((5, 6, 7), np.uint8)
    stored[2, 3, 3] = 255
    at = [2, 3, 5]
    at[axis] = 0 if side == 0 else stored.shape[axis] - 1
    stored[tuple(at)] = 255
    found = detect(stored, scale=255, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    expected = np.zeros((2, 3, 2), bool)
    row = [tuple(site) for site in found.site].index(tuple(at))
    expected[row, axis, side] = True
    expected[row, 2, 1] |= at[2] == 6
    assert np.array_equal(found.touches, expected)
    assert found.complete.tolist() == (~expected.any(axis=(1, 2))).tolist()


def ball_pair(distance, radius, voxel_size, axis=2):
    """Two balls in one map, their centres `distance` nm apart along an axis, and the centres."""
    grid = np.indices((13, 90, 90)) * np.reshape(voxel_size, (3, 1, 1, 1))
    middle = np.array([6, 45, 45]) * voxel_size
    shift = np.eye(3)[axis] * distance / 2
    centers = np.array([middle - shift, middle + shift])
    apart = [np.linalg.norm(grid - center[:, None, None, None], axis=0) for center in centers]
    return (np.minimum(*apart) <= radius).astype(np.uint8) * 255, centers / voxel_size


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxel_size", VOXEL_SIZES[:2])
def test_two_balls_that_have_run_into_each_other_are_two_sites(axis, voxel_size):
    stored, centers = ball_pair(160, 95, voxel_size, axis)
    whole = DetectionRule(0.5, site="centroid")
    assert len(detect(stored, scale=255, rule=whole, voxel_size=voxel_size)) == 1
    rule = replace(whole, split=SplitRule(min_distance_nm=60, min_size=20))
    found = detect(stored, scale=255, rule=rule, voxel_size=voxel_size)
    assert len(found) == 2
    assert found.size.sum() == np.count_nonzero(stored)
    assert (np.abs((found.site - centers) * voxel_size) <= 1.5 * np.array(voxel_size)).all()
    # A part is only as sure as the component: both carry its box.
    assert (found.begin[0] == found.begin[1]).all() and (found.end[0] == found.end[1]).all()


@pytest.mark.parametrize(("distance", "split"), [
    (60, SplitRule(20, 1)),  # hardly a neck
    (160, SplitRule(200, 1)),  # parts nearer than asked for
    (160, SplitRule(60, 2000)),  # parts smaller than asked for
])
def test_what_is_no_pair_of_sites_stays_together(distance, split):
    stored, _ = ball_pair(distance, 95, (40, 4, 4))
    rule = DetectionRule(0.5, split=split)
    assert len(detect(stored, scale=255, rule=rule, voxel_size=(40, 4, 4))) == 1


@given(seeds, voxel_sizes, st.floats(1, 60), st.integers(1, 20))
def test_parts_are_connected_large_enough_and_make_up_the_component(seed, voxel_size, distance, size):
    stored = blobs(seed, (5, 16, 16))
    rule = DetectionRule(0.4, split=SplitRule(distance, size))
    components = detect(stored, scale=255, rule=replace(rule, split=None), voxel_size=voxel_size)
    parts = detect(stored, scale=255, rule=rule, voxel_size=voxel_size)
    numbers = np.zeros(stored.size, int)
    numbers[parts.voxels] = np.repeat(np.arange(len(parts)) + 1, parts.size)
    assert sorted(parts.voxels) == sorted(components.voxels)
    for rows in np.split(components.voxels, components.starts[1:-1]):
        inside = np.unique(numbers[rows])
        assert len(inside) == 1 or min(parts.size[inside - 1]) >= size
    for part in range(1, len(parts) + 1):
        assert ndimage.label((numbers == part).reshape(stored.shape))[1] == 1


@pytest.mark.parametrize("method", ["components", "maxima"])
def test_nothing_is_found_in_nothing(method):
    rule = DetectionRule(0.5, method=method, radius_nm=(40, 40, 40), split=SplitRule(10, 2))
    for shape in ((0, 4, 5), (3, 4, 5)):
        stored = np.zeros(shape, np.uint8)
        for site, score in itertools.product(SITES, SCORES):
            found = detect(stored, scale=255, rule=replace(rule, site=site, score=score),
                           voxel_size=(40, 4, 4))
            assert len(found) == 0 and found.site.shape == found.begin.shape == (0, 3)
            for how in ("site", "mean"):
                vectors = direction_vectors_of(found, np.zeros((3, *shape)), scale=1, how=how)
                assert vectors.shape == (0, 3)


@pytest.mark.parametrize("site", SITES)
def test_an_array_of_foreground_only_is_one_site_in_its_middle(site):
    stored = np.full((5, 41, 51), 255, np.uint8)
    found = detect(stored, scale=255, rule=DetectionRule(0.5, site=site), voxel_size=(40, 4, 4))
    assert found.score.tolist() == [stored.size]
    assert found.touches.all()
    expected = (2, 20, 20) if site == "edt" else (2, 20, 25)  # the first of a row of deepest ones
    assert tuple(found.site[0]) == expected


@given(st.floats(0, 1), st.sampled_from([255, 100, 200.0, 1, 254.5]),
       st.sampled_from(["u1", "u2", "f4", "f8"]))
def test_the_threshold_is_converted_to_what_is_stored_exactly(threshold, scale, dtype):
    limit = largest_not_above(threshold, scale=scale, dtype=np.dtype(dtype))
    assert limit.dtype == dtype and float(limit) / scale <= threshold
    if dtype[0] == "f":
        assert float(np.nextafter(limit, limit.dtype.type(np.inf))) / scale > threshold
    elif limit < np.iinfo(dtype).max:
        assert (int(limit) + 1) / scale > threshold


def test_a_voxel_of_the_threshold_itself_is_background():
    stored = np.repeat(np.arange(256, dtype=np.uint8), 2).reshape(1, 1, 512)
    stored[..., 1::2] = 0
    for threshold in [*(k / 255 for k in range(256)), 0.1, 0.2, 0.6, 0.95]:
        found = detect(stored, scale=255, rule=DetectionRule(threshold), voxel_size=(40, 4, 4))
        assert len(found) == np.count_nonzero(np.arange(256) / 255 > threshold)


def test_memory_follows_the_foreground_and_not_the_array():
    stored = np.zeros((30, 300, 400), np.uint8)
    stored[10:12, 100:110, 200:220] = stored[20, 40:50, 30:36] = 255
    rule = DetectionRule(0.5, split=SplitRule(40, 20))
    detect(stored, scale=255, rule=rule, voxel_size=(40, 4, 4))  # compiles
    tracemalloc.start()
    try:
        assert len(detect(stored, scale=255, rule=rule, voxel_size=(40, 4, 4))) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < stored.nbytes / 10


def test_a_score_of_the_limit_itself_is_left_out():
    stored = np.zeros((3, 5, 9), np.uint8)
    stored[1, 1:3, 1] = stored[1, 1:4, 4] = stored[1, 1, 7] = 51
    found = detect(stored, scale=51, rule=DetectionRule(0.5, min_score=2.0), voxel_size=(40, 4, 4))
    assert found.score.tolist() == [3.0]


def test_voxels_that_are_nan_are_background():
    stored = np.full((3, 3, 5), np.nan, np.float32)
    stored[1, 1, 1] = 0.75
    found = detect(stored, scale=1, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    assert found.site.tolist() == [[1, 1, 1]] and found.score.tolist() == [0.75]


@pytest.mark.parametrize("dtype", [bool, np.float16, np.uint16, ">f4"])
def test_other_types_and_views_are_understood(dtype):
    stored = np.zeros((8, 6, 10), dtype)[::2, :, ::-1]
    stored[1, 2, 3:5] = 1
    found = detect(stored, scale=1, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    assert found.site.tolist() == [[1, 2, 3]] and found.score.tolist() == [2.0]


def test_what_is_no_indicator_map_is_refused():
    for wrong in (np.zeros((3, 4)), np.zeros((2, 2, 2), complex)):
        with pytest.raises(ValueError, match="indicator"):
            detect(wrong, scale=1, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    with pytest.raises(ValueError, match="positive"):
        detect(np.zeros((1, 1, 1)), scale=0, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))


@given(seeds, st.sampled_from([np.int8, np.float32]))
def test_vectors_are_those_of_sites_or_means_in_nm(seed, dtype):
    stored = blobs(seed)
    vectors = np.random.default_rng(seed).uniform(-120, 120, (3, *stored.shape)).astype(dtype)
    found = detect(stored, scale=255, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    at_sites = direction_vectors_of(found, vectors, scale=0.25)
    means = direction_vectors_of(found, vectors, scale=0.25, how="mean")
    for i in range(len(found)):
        np.testing.assert_allclose(at_sites[i], vectors[(slice(None), *found.site[i])] / 0.25)
        own = vectors.reshape(3, -1)[:, found.voxels[found.starts[i] : found.starts[i + 1]]]
        np.testing.assert_allclose(means[i], own.mean(axis=1, dtype=float) / 0.25, rtol=1e-9)


def test_vectors_of_another_array_are_refused():
    found = detect(np.zeros((3, 4, 5)), scale=1, rule=DetectionRule(0.5), voxel_size=(40, 4, 4))
    with pytest.raises(ValueError, match=r"\(3, 3, 4, 5\)"):
        direction_vectors_of(found, np.zeros((3, 3, 4, 6)), scale=1)


def test_selected_rows_keep_their_voxels():
    stored = blobs(3)
    found = detect(stored, scale=255, rule=DetectionRule(0.6), voxel_size=(40, 4, 4))
    rows = np.arange(len(found))[::-2]
    some = found.select(rows)
    assert np.array_equal(some.site, found.site[rows]) and len(some) == len(rows) > 1
    for i, row in enumerate(rows):
        expected = found.voxels[found.starts[row] : found.starts[row + 1]]
        assert np.array_equal(some.voxels[some.starts[i] : some.starts[i + 1]], expected)

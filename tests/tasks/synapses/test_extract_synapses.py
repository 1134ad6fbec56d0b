"""Extraction: the same rows for every block grid, each once, killed anywhere or not."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import Frame
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.tasks.base import BlockReport
from em_blocks.volumes import Volume
from extracting import FRAME, SHAPE, VECTOR_SCALE, blobs, components, extraction, predictions

BLOCKS = [(12, 40, 50), (6, 20, 25), (5, 16, 11), (4, 40, 7), (3, 13, 50)]
# Every example makes volumes: to shrink a failure takes minutes.
NO_SHRINKING = [Phase.explicit, Phase.generate]


class Collected:
    """A context whose rows, which blocks store, are kept without a database."""

    def __init__(self):
        self.blocks = {}

    def rows(self, schema):
        return self

    def reserve_ids(self, n):
        return 0

    def replace_block(self, block, synapses, flags):
        self.blocks[block] = synapses, flags

    def all(self):
        """All rows in the order of their ids, their flags, and how many there are."""
        tables, flags = zip(*self.blocks.values(), strict=True)
        every = {name: np.concatenate([f[name] for f in flags]) for name in flags[0]}
        table = Synapses.concatenate(tables)
        order = np.argsort(table.id)
        return table.select(order), {name: values[order] for name, values in every.items()}


def done(task):
    """All blocks in this process; the rows, their flags and the counts."""
    task.check()
    store, counts = Collected(), Counter()
    with task.open(store) as process:
        for block in task.grid().blocks():
            report = BlockReport()
            process(block, report)
            counts.update(report.counts)
    return (*store.all(), counts)


def assert_same(a, b):
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(a[0], name), getattr(b[0], name), err_msg=name)
    for name, rows in a[1].items():
        np.testing.assert_array_equal(rows, b[1][name], err_msg=name)
    assert a[2] == b[2]


def maxima(threshold=0.6, **options):
    return {"method": "maxima", "threshold": threshold, "radius_nm": [40, 12, 12], **options}


RULES = {
    "edt": {"detection": components()},
    "peak": {"detection": components(site="peak", min_size=4, score="max")},
    "centroid, mean vector": {
        "detection": components(site="centroid", score="mean"), "vector": "mean",
        "max_distance_nm": 80,
    },
    "maxima": {"detection": maxima()},
    "split": {"detection": components(0.6, split={"min_distance_nm": 30})},
    "duplicates": {"detection": components(), "duplicate_distance_nm": 60, "flip": True},
    "truncated": {"detection": components(0.55), "max_extent_nm": [120, 40, 60]},
    "truncated maxima": {"detection": maxima(radius_nm=[40, 4, 4]), "max_extent_nm": [80, 40, 46]},
    "truncated, split": {
        "detection": components(0.55, split={"min_distance_nm": 30}), "max_extent_nm": [120, 40, 60],
    },
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_one_block_equals_many(tmp_path, rule):
    indicator = blobs(seed=1)
    indicator[2:5, 30:, 40:] = 255  # a plateau
    paths = predictions(tmp_path, indicator)
    reference = done(extraction(paths, BLOCKS[0], **rule))
    assert len(reference[0]) > 5 and reference[2]["components"] > 12
    if "max_extent_nm" in rule:
        assert 0 < reference[2]["truncated"] < len(reference[0])
    for shape in BLOCKS[1:]:
        assert_same(done(extraction(paths, shape, **rule)), reference)


@settings(max_examples=8, phases=NO_SHRINKING)
@given(
    seed=st.integers(0, 99), block=st.tuples(*(st.integers(n // 4, n) for n in SHAPE)),
    rule=st.sampled_from(sorted(RULES)), extent=st.sampled_from([(80, 40, 40), (2000, 2000, 2000)]),
)
def test_rows_do_not_depend_on_blocks_and_context(tmp_path_factory, seed, block, rule, extent):
    paths = predictions(tmp_path_factory.mktemp("law"), blobs(seed))
    rule = {"max_extent_nm": extent, **RULES[rule]}
    whole = done(extraction(paths, **rule, context_nm=[2000, 2000, 2000]))
    assert_same(done(extraction(paths, block, **rule)), whole)


def test_every_row_is_what_a_slow_look_at_the_whole_volume_finds(tmp_path):
    indicator = blobs()
    paths = predictions(tmp_path, indicator)
    rows, flags, counts = done(extraction(paths, (5, 16, 11), detection=components(site="centroid")))
    vectors = Volume.open(paths[1]).read(Volume.open(paths[1]).box) / VECTOR_SCALE
    labels, n = ndimage.label(indicator / 255 > 0.7)
    assert len(rows) == counts["components"] == counts["synapses"] == n
    expected = {}
    for i in range(1, n + 1):
        voxels = np.argwhere(labels == i)
        nearest = np.linalg.norm((voxels - voxels.mean(axis=0)) * FRAME.voxel_size, axis=1).argmin()
        site = voxels[nearest]
        post = FRAME.offset + (site + 0.5) * FRAME.voxel_size
        expected[int(np.ravel_multi_index(site, SHAPE))] = (
            post, post + vectors[:, *site], indicator[labels == i].sum() / 255, len(voxels)
        )
    assert rows.id.tolist() == sorted(expected)
    for n, id in enumerate(rows.id.tolist()):
        post, pre, score, size = expected[id]
        np.testing.assert_array_equal(rows.post[n], post)
        np.testing.assert_allclose(rows.pre[n], pre, rtol=0, atol=1e-9)
        assert rows.score[n] == pytest.approx(score) and rows.size[n] == size
    outside = ((rows.pre < FRAME.offset) | (rows.pre >= Volume.open(paths[0]).roi.end)).any(axis=1)
    np.testing.assert_array_equal(flags["outside"], outside)
    assert counts["outside"] == outside.sum() > 0


def test_synapses_on_faces_edges_and_corners_are_found_once(tmp_path):
    indicator = np.zeros(SHAPE, np.uint8)
    for n, (z, y, x) in enumerate([(6, 10, 10), (6, 20, 10), (6, 20, 25), (1, 19, 24), (3, 30, 12)]):
        indicator[z - 1 : z + 2, y - 2 : y + 3, x - 2 : x + 3] = 200 + n
    paths = predictions(tmp_path, indicator)
    whole = done(extraction(paths))
    assert whole[2]["synapses"] == 5
    assert_same(done(extraction(paths, (6, 20, 25))), whole)


def test_a_component_larger_than_blocks_and_context_is_one_synapse(tmp_path):
    indicator = np.zeros(SHAPE, np.uint8)
    indicator[5, 3:37, 4] = indicator[5, 36, 4:48] = indicator[2:6, 36, 47] = 255  # a bent rod
    paths = predictions(tmp_path, indicator)
    rows, flags, _ = done(extraction(paths, (3, 5, 6)))
    assert len(rows) == 1 and not flags["truncated"].any()
    assert rows.size[0] == np.count_nonzero(indicator)


def test_one_that_is_larger_than_allowed_is_cut_along_a_fixed_grid(tmp_path):
    indicator = np.zeros(SHAPE, np.uint8)
    indicator[5, 3, :] = 255
    paths = predictions(tmp_path, indicator)
    rows, flags, counts = done(extraction(paths, (3, 5, 6), max_extent_nm=[80, 40, 46]))
    assert rows.size.tolist() == [10] * 5 and flags["truncated"].all() and counts["truncated"] == 5


def test_what_is_left_out_is_counted_once_by_its_reason(tmp_path):
    paths = predictions(tmp_path, blobs())
    options = {
        "detection": components(min_size=5, max_size=300, min_score=6.0),
        "min_distance_nm": 40, "max_distance_nm": 100, "duplicate_distance_nm": 120,
    }
    for shape in BLOCKS[:3]:
        rows, _, counts = done(extraction(paths, shape, **options))
        left_out = ("too_small", "too_large", "low_score", "too_short", "too_long", "duplicates")
        assert counts["components"] == len(rows) + sum(counts[name] for name in left_out)
        assert all(counts[name] for name in left_out) and counts["synapses"] == len(rows)


def test_flipped_sites_are_presynaptic(tmp_path):
    paths = predictions(tmp_path, blobs())
    straight, flipped = done(extraction(paths))[0], done(extraction(paths, flip=True))[0]
    np.testing.assert_array_equal(flipped.pre, straight.post)
    np.testing.assert_array_equal(flipped.post, straight.pre)


def test_the_mean_of_vectors_that_meet_in_a_point_is_that_point(tmp_path):
    indicator = np.zeros(SHAPE, np.uint8)
    indicator[4:6, 10:13, 10:40] = 255
    indicator[6, 10:12, 30:45] = 255  # the site is not the centre
    paths = predictions(tmp_path, indicator, vector_scale=None, vector_dtype="float32")
    partner = np.array([700.0, 150.0, 33.0])
    grid = np.stack(np.indices(SHAPE), axis=-1)
    vectors = partner - (FRAME.offset + (grid + 0.5) * FRAME.voxel_size)
    volume = Volume.open(paths[1], mode="r+")
    volume.write(volume.box, np.moveaxis(vectors, -1, 0).astype(np.float32))
    for how in ("site", "mean"):
        rows, _, _ = done(extraction(paths, vector=how))
        np.testing.assert_allclose(rows.pre, [partner], atol=1e-3)


def test_a_region_has_the_rows_that_the_volume_has_there(tmp_path):
    paths = predictions(tmp_path, blobs())
    whole = done(extraction(paths))[0]
    roi = {"offset": [480, -18, 32.2], "shape": [200, 92, 161]}
    part = done(extraction(paths, (3, 10, 10), roi=roi))[0]
    begin = np.array(roi["offset"])
    inside = ((whole.post >= begin) & (whole.post < begin + roi["shape"])).all(axis=1)
    assert 0 < inside.sum() < len(whole)
    np.testing.assert_array_equal(part.id, whole.id[inside])
    np.testing.assert_array_equal(part.pre, whole.pre[inside])


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"vector_scale": None}, "vectors .* hold int8 without the attribute 'scale'"),
    ({"scale": None}, "indicator .* hold uint8 without the attribute 'scale'"),
    ({"channels": 2}, "indicator .* has 2 channels"),
])
def test_volumes_that_nobody_can_understand_are_refused(tmp_path, options, message):
    indicator = blobs()
    if "channels" in options:
        indicator = indicator.view(np.int8)
        message, options = "no channels of dtype int8", {}
    with pytest.raises(ConfigError, match=message):
        extraction(predictions(tmp_path, indicator, **options)).check()


def test_vectors_of_other_voxels_are_refused(tmp_path):
    indicator = blobs()
    paths = predictions(tmp_path, indicator)
    others = {
        "shape": predictions(tmp_path / "a", indicator[:, :, :-1]),
        "voxel size": predictions(tmp_path / "b", indicator, frame=Frame((40, 4, 4), FRAME.offset)),
        "offset": predictions(tmp_path / "c", indicator, frame=Frame(FRAME.voxel_size, (0, 0, 0))),
    }
    for name, other in others.items():
        with pytest.raises(ConfigError, match="vectors of other places"):
            extraction([paths[0], other[1]]).check()
        assert name
    with pytest.raises(ConfigError, match="direction is three numbers"):
        extraction([paths[0], paths[0]]).check()
    with pytest.raises(GeometryError, match="is not inside the indicator"):
        extraction(paths, roi={"offset": FRAME.offset, "shape": [40, 4, 460]}).check()
    with pytest.raises(ConfigError, match="no pair would be left"):
        extraction(paths, min_distance_nm=50, max_distance_nm=40)
    with pytest.raises(ConfigError, match="no site would be left"):
        extraction(paths, detection={"method": "components", "min_size": 5, "max_size": 4})

"""From affinities to segments: the same for any blocks and super-blocks; methods, masks, thresholds."""

import itertools
import re
from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.models.head import Storage
from em_blocks.tasks.prediction.options import HeadOutput
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables
from segmenting import (
    FRAME,
    NEIGHBORHOOD,
    SHAPE,
    TILE,
    assert_same_segments,
    errors,
    forest,
    fragments,
    here,
    neurons,
    noisy,
    segment,
    segments,
    stored,
)

ROUNDED = np.rint(noisy(neurons()) * 255) / 255
"""Affinities that uint8, uint16 and float32 hold alike."""


@pytest.fixture(scope="module")
def affinities(tmp_path_factory):
    return stored(ROUNDED, tmp_path_factory.mktemp("affinities"))


@pytest.fixture(scope="module")
def reference(affinities, tmp_path_factory):
    """Done in blocks of 2 tiles, with two levels of super-blocks."""
    return made(affinities, tmp_path_factory.mktemp("reference"))


def made(affinities, folder, **options):
    task = segment(affinities, folder, **options)
    here(task)
    return task


# -- any blocks, any super-blocks, one result ---------------------------------------------


@pytest.mark.parametrize(
    ("block_shape", "super_block", "n_levels"),
    [
        (TILE, (2, 2, 2), 3),
        (TILE, (4, 4, 5), 1),
        (TILE, (3, 2, 5), 2),
        ((10, 24, 24), (2, 2, 3), 1),
        ((20, 48, 60), (4, 4, 4), 1),  # the whole volume is one block
        ((5, 48, 12), (2, 1, 3), 2),
    ],
)
def test_nothing_depends_on_blocks_or_super_blocks(
    affinities, reference, tmp_path, block_shape, super_block, n_levels
):
    task = made(affinities, tmp_path, block_shape=block_shape, super_block=super_block)
    assert sum(step.kind == "agglomerate_graph" for step in task.steps()) == n_levels
    assert len(forest(task)) > 300
    assert_same_segments(task, reference)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edges": {"long_range_weight": 0}},
        {"edges": {"scores": "quantile", "quantile": 0.75}},
        {"size_rule": {"voxels": 300, "affinity": 0.75}},
        {"size_rule": {"voxels": 300, "affinity": 0.75}, "edges": {"scores": "quantile"}},
    ],
    ids=["mean", "direct only", "quantile", "size rule", "size rule and quantile"],
)
def test_nothing_depends_on_the_grid_where_many_affinities_are_equal(tmp_path, options):
    coarse = stored(np.rint(noisy(neurons(), noise=0.5) * 4) / 4, tmp_path)
    grids = [
        {"block_shape": [20, 48, 60]},
        {"block_shape": TILE, "super_block": [2, 3, 2]},
        {"block_shape": [10, 24, 12], "super_block": [2, 2, 2]},
    ]
    first, *others = (
        made(coarse, tmp_path / str(n), thresholds=[0.2, 0.6, 0.9], **grid, **options)
        for n, grid in enumerate(grids)
    )
    assert len(set(forest(first).values())) < len(forest(first))
    for other in others:
        assert_same_segments(other, first)


def test_the_size_rule_keeps_large_clusters_apart(affinities, tmp_path):
    ruled = made(affinities, tmp_path, size_rule={"voxels": 300, "affinity": 0.9}, thresholds=[0.9])
    free = made(affinities, tmp_path / "free", thresholds=[0.9])
    sizes = [np.unique(segments(task, 0.9), return_counts=True)[1] for task in (ruled, free)]
    assert (sizes[0] >= 300).sum() > (sizes[1] >= 300).sum()
    assert errors(segments(ruled, 0.9), neurons()).merge < errors(segments(free, 0.9), neurons()).merge


@pytest.mark.parametrize("scores", ["waterz_mean", "waterz_quantile"])
def test_scores_of_waterz_are_joined_to_one_forest_by_any_super_blocks(affinities, tmp_path, scores):
    """Their edges depend on the blocks, which see more or less around them, but nothing else does."""
    many, one = (
        made(affinities, tmp_path / str(n), super_block=super_block, edges={"scores": scores})
        for n, super_block in enumerate([(2, 2, 2), (4, 4, 4)])
    )
    assert_same_segments(many, one)


def test_fragments_are_one_piece_in_one_tile_and_no_other_has_their_id(reference):
    labels = fragments(reference)
    assert 0 < labels.max() < 2**63
    for step in range(len(TILE)):
        assert labels.shape[step] % TILE[step]
    places = ndimage.find_objects(np.searchsorted(np.unique(labels), labels))
    assert len(places) > 300
    for place in places:
        for part, size in zip(place, TILE, strict=True):
            assert part.start // size == (part.stop - 1) // size
    for id in np.unique(labels)[1::10]:
        assert ndimage.label(labels == id)[1] == 1


def test_tables_of_fragments_say_what_lies_in_the_volume(reference):
    labels, step = fragments(reference), reference.steps()[0]
    tables, seen = BlockTables(step.tables), 0
    for block in step.grid().blocks():
        rows = tables.read(block.key)
        for n, id in enumerate(rows["fragment"][::7]):
            where = np.argwhere(labels == id)
            assert len(where) == rows["voxels"][7 * n]
            center = (where.mean(axis=0) + 0.5) * FRAME.voxel_size + FRAME.offset
            np.testing.assert_allclose(rows["center"][7 * n], center)
            np.testing.assert_array_equal(rows["begin"][7 * n], where.min(axis=0))
            np.testing.assert_array_equal(rows["end"][7 * n], where.max(axis=0) + 1)
        seen += len(rows["fragment"])
    assert seen == len(np.unique(labels[labels > 0]))


def test_the_volumes_lie_where_the_affinities_lie(affinities, reference):
    for path in (f"{reference.output}/fragments", reference.segments_path(0.5)):
        volume = Volume.open(path)
        assert (volume.frame, volume.shape, volume.dtype) == (FRAME, SHAPE, np.dtype("uint64"))


# -- affinities as they come --------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_dtype_of_affinities_does_not_matter(reference, tmp_path, dtype):
    assert_same_segments(made(stored(ROUNDED, tmp_path, dtype=dtype), tmp_path), reference)


SEVENTHS = np.rint(noisy(neurons()) * 127) / 127
"""Affinities that int8 with its scale holds."""


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("int8", 127.0), ("uint8", 254.0), ("int16", 127.0), ("uint32", 1270.0), ("float16", 127.0),
     ("float32", 127.0), ("float64", None), ("float64", 127.0)],
)
def test_affinities_of_every_dtype_and_scale_are_segmented_alike(tmp_path, dtype, scale):
    values = np.rint(SEVENTHS * scale) if scale else SEVENTHS
    path = stored(values.astype(dtype), tmp_path, name=dtype, dtype=dtype if dtype != "uint8" else "u1")
    if scale:
        Volume.open(path, mode="r+").set_attributes(scale=scale)
    same = made(stored(SEVENTHS, tmp_path, name="same", dtype="float64"), tmp_path / "same")
    assert_same_segments(made(path, tmp_path / "a"), same)


@pytest.mark.parametrize("dtype", get_args(get_args(HeadOutput.model_fields["dtype"].annotation)[0]))
def test_every_dtype_that_predict_offers_can_be_segmented(tmp_path, dtype):
    scale = Storage().scales.get(dtype)
    values = (SEVENTHS * (scale or 1)).astype(dtype)
    path = stored(values, tmp_path, dtype=dtype if dtype != "uint8" else "u1")
    if scale:
        Volume.open(path, mode="r+").set_attributes(scale=scale)
    task = made(path, tmp_path)
    assert sum(errors(segments(task, 0.5), neurons())) < 0.5


def test_what_an_integer_means_has_to_be_said(tmp_path):
    path = stored(np.rint(SEVENTHS * 127), tmp_path, dtype="int8")
    with pytest.raises(ConfigError, match=r"is int8;.*Write the attribute 'scale'"):
        here(segment(path, tmp_path))


@pytest.mark.parametrize(("value", "dtype", "scale"), [
    (np.nan, "float32", None), (np.inf, "float64", None), (-0.5, "float16", None),
    (1.01, "float32", None), (-3, "int8", 127.0), (101, "uint8", 100.0),
])
def test_a_value_that_is_no_affinity_is_named_with_its_place(tmp_path, value, dtype, scale):
    values = np.rint(SEVENTHS * (scale or 0)).astype(dtype)
    values[2, 7, 20, 30] = value
    path = stored(values, tmp_path, dtype=dtype if dtype != "uint8" else "u1")
    if scale:
        Volume.open(path, mode="r+").set_attributes(scale=scale)
    shown = f"{value / (scale or 1):.4g}"
    where = re.escape(f"got {shown} in channel 2 at voxel (7, 20, 30), (680.0, 138.0, 128.8) nm (zyx)")
    with pytest.raises(VolumeError, match=where):
        here(segment(path, tmp_path))


# -- empty regions ------------------------------------------------------------------------

METHODS = [
    {"method": "watershed"}, {"method": "watershed", "small": 15, "long_range_weight": 0.5},
    {"method": "watershed", "join": "contact"}, {"method": "watershed", "dimensions": 2},
    {"method": "mutex_watershed"},
]


@pytest.mark.parametrize("method", METHODS)
def test_empty_regions_are_background(tmp_path, method):
    values = ROUNDED.copy()
    values[:, :, 20:, 20:] = 0  # resin
    path = stored(values, tmp_path)
    task = made(path, tmp_path / "a", fragments=method)
    found = fragments(task)
    assert not found[:, 20:, 20:].any()
    assert (found[:, :20] > 0).mean() > 0.9
    assert not segments(task, 0.5)[:, 20:, 20:].any()
    assert_same_segments(task, made(path, tmp_path / "b", fragments=method, block_shape=[20, 48, 60]))


@pytest.mark.parametrize("method", METHODS)
def test_what_any_affinity_joins_is_segmented_as_if_nothing_were_empty(tmp_path, monkeypatch, method):
    values = ROUNDED.copy()
    values[:, 8:, 20:] = 0
    values[:, :4][:, :, :, ::7] = 0  # membranes of one voxel
    path = stored(values, tmp_path)
    found = fragments(made(path, tmp_path / "a", fragments=method))
    monkeypatch.setattr(
        "em_blocks.tasks.segmentation.extract_fragments.attached", lambda affinities, *_: np.True_
    )
    whole = fragments(made(path, tmp_path / "b", fragments=method))
    pairs = np.unique(np.stack([found[found > 0], whole[found > 0]]), axis=1)
    sizes = np.unique(whole, return_counts=True)
    alone = set(sizes[0][sizes[1] == 1].tolist())
    if method.get("join") != "contact":  # which had joined what is empty to one object
        assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1]))
        assert set(np.unique(whole[found == 0]).tolist()) <= alone | {0}


def test_a_volume_without_any_affinity_has_no_fragments(tmp_path):
    task = segment(stored(ROUNDED * 0, tmp_path), tmp_path)
    assert here(task)["seg.fragments.fragments"] == 0
    assert not fragments(task).any() and not segments(task, 0.3).any()


def test_the_sign_of_shifts_does_not_matter(reference, tmp_path):
    """What a channel says about a voxel and the one before is said by that one about the next."""
    values, shifts = ROUNDED.copy(), list(NEIGHBORHOOD)
    for channel in (0, 2, 4):
        axis = next(a for a in range(3) if shifts[channel][a])
        step = -shifts[channel][axis]
        values[channel] = np.roll(values[channel], -step, axis)
        np.moveaxis(values[channel], axis, 0)[-step:] = 0
        shifts[channel] = tuple(-n for n in shifts[channel])
    path = stored(values, tmp_path, neighborhood=None)
    assert_same_segments(made(path, tmp_path, neighborhood=shifts), reference)


def test_the_order_of_channels_does_not_matter(reference, tmp_path):
    order = [4, 1, 5, 0, 3, 2]
    path = stored(ROUNDED[order], tmp_path, neighborhood=[NEIGHBORHOOD[c] for c in order])
    assert_same_segments(made(path, tmp_path), reference)


# -- methods and options ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "threshold", "bits"),
    [
        ({}, 0.5, 0.2),
        ({"fragments": {"method": "mutex_watershed"}}, 0.5, 0.2),
        ({"fragments": {"method": "mutex_watershed", "strides": [1, 2, 2]}}, 0.5, 0.2),
        ({"fragments": {"method": "watershed", "dimensions": 2, "small": 10}}, 0.5, 0.4),
        # All channels of one axis, averaged, see the membrane.
        ({"fragments": {"method": "watershed", "long_range_weight": 1.0, "small": 10}}, 0.5, 0.3),
        ({"edges": {"scores": "quantile", "quantile": 0.75}}, 0.2, 0.3),
        ({"edges": {"scores": "waterz_quantile"}, "block_shape": [20, 48, 60]}, 0.2, 0.3),
        ({"edges": {"scores": "waterz_quantile"}, "context": [5, 12, 12]}, 0.2, 0.6),
    ],
)
def test_every_method_finds_the_neurons(affinities, tmp_path, options, threshold, bits):
    task = made(affinities, tmp_path, **{"thresholds": [threshold], **options})
    assert sum(errors(segments(task, threshold), neurons())) < bits
    assert sum(errors(fragments(task), neurons())) > 2 * bits


def test_waterz_in_one_block_is_our_mean_of_direct_affinities(affinities, tmp_path):
    """Two implementations of mean affinity agglomeration, but for the 256 levels of waterz."""
    whole = {"block_shape": [20, 48, 60], "thresholds": [0.3, 0.5, 0.7]}
    ours = made(affinities, tmp_path / "a", edges={"long_range_weight": 0}, **whole)
    theirs = made(affinities, tmp_path / "b", edges={"scores": "waterz_mean"}, **whole)
    for threshold in whole["thresholds"]:
        assert sum(errors(segments(ours, threshold), segments(theirs, threshold))) < 0.05


def test_fragments_in_2d_stay_in_their_section(affinities, tmp_path):
    options = {"fragments": {"method": "watershed", "dimensions": 2, "small": 10}}
    labels = fragments(made(affinities, tmp_path, **options))
    both = (labels[1:] == labels[:-1]) & (labels[1:] != 0)
    assert not both.any()


def test_min_size_and_min_mean_affinity_leave_background(affinities, reference, tmp_path):
    large = fragments(made(affinities, tmp_path / "a", min_size=30))
    sizes = np.unique(large[large > 0], return_counts=True)[1]
    assert sizes.min() >= 30
    assert (large == 0).sum() > (fragments(reference) == 0).sum()

    inner = made(affinities, tmp_path / "b", min_mean_affinity=0.6)
    mean = np.rint(ROUNDED[:3] * 65535).mean(axis=0) / 65535
    assert not fragments(inner)[mean < 0.599].any()
    assert (segments(inner, 0.5) > 0).sum() == (fragments(inner) > 0).sum()


# -- masks --------------------------------------------------------------------------------


def mask_volume(folder, values, voxel_size, offset):
    volume = Volume.create(str(folder / "in.zarr/mask"), shape=values.shape, dtype="uint8",
                           frame=Frame(voxel_size, offset), chunk_shape=(4, 8, 8))
    volume.write(volume.box, values.astype("uint8"))
    return volume.path


def test_what_the_mask_leaves_out_is_0_and_the_rest_is_segmented(affinities, tmp_path):
    inside = np.zeros(SHAPE, bool)
    inside[4:, 13:40, 9:] = True
    mask = mask_volume(tmp_path, inside, FRAME.voxel_size, FRAME.offset)
    small = made(affinities, tmp_path / "a", mask=mask)
    large = made(affinities, tmp_path / "b", mask=mask, block_shape=[20, 48, 60])
    assert_same_segments(small, large)
    assert not fragments(small)[~inside].any()
    assert (segments(small, 0.5)[inside] > 0).mean() > 0.9
    assert sum(errors(segments(small, 0.5), np.where(inside, neurons(), 0))) < 0.3


def test_whole_blocks_are_left_out_at_every_level(affinities, tmp_path):
    inside = np.zeros(SHAPE, bool)
    inside[:, :12, :13] = True  # most super-blocks are masked
    inside[15:, 40:, 50:] = True
    mask = mask_volume(tmp_path, inside, FRAME.voxel_size, FRAME.offset)
    task = made(affinities, tmp_path / "a", mask=mask, block_shape=TILE)
    assert_same_segments(task, made(affinities, tmp_path / "b", mask=mask, block_shape=[20, 48, 60]))


def test_a_mask_of_other_voxels_and_place(affinities, tmp_path):
    """Three times as coarse, beginning one coarse voxel after the volume: the nearest voxel counts."""
    coarse = np.ones((6, 14, 17), np.uint8)
    coarse[2, 5:7, 3] = 0
    size = tuple(3 * n for n in FRAME.voxel_size)
    mask = mask_volume(tmp_path, coarse, size, tuple(np.add(FRAME.offset, size)))
    task = made(affinities, tmp_path, mask=mask, min_size=0)
    inside = np.zeros(SHAPE, bool)
    fine = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    inside[3:, 3:, 3:] = fine[: SHAPE[0] - 3, : SHAPE[1] - 3, : SHAPE[2] - 3]
    np.testing.assert_array_equal(fragments(task) > 0, inside)


# -- thresholds ---------------------------------------------------------------------------


def test_segments_of_a_lower_threshold_lie_in_those_of_a_higher(affinities, tmp_path):
    thresholds = [0, 0.1, 0.3, 0.5, 0.8, 0.98]
    task = made(affinities, tmp_path, thresholds=thresholds)
    found = [fragments(task), *(segments(task, threshold) for threshold in thresholds)]
    counts = [len(np.unique(labels)) for labels in found]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) > 4
    for lower, higher in itertools.pairwise(found):
        pairs = np.unique(np.stack([lower.ravel(), higher.ravel()]), axis=1)
        assert len(pairs[0]) == len(np.unique(lower))
        assert ((lower == 0) == (higher == 0)).all()


def test_a_segment_is_named_by_its_smallest_fragment(reference):
    labels, found = fragments(reference).ravel(), segments(reference, 0.5).ravel()
    for id in np.unique(found):
        assert labels[found == id].min() == id


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thresholds": [0.5, 0.3]}, r"must ascend.*use \[0.3, 0.5\]"),
        ({"thresholds": [0.5, 0.5]}, "must ascend, each once"),
        ({"thresholds": [0.5, 0.5000000001]}, "first six digits"),
        ({"thresholds": []}, "'thresholds'"),
        ({"thresholds": [1.2]}, "'thresholds.0'"),
        ({"thresholds": [0.99]}, r"beyond the end of the merge forest.*= 0.98; lower 'lowest_aff"),
        ({"output": "seg"}, r"no .zarr container.*use .*seg.zarr"),
        ({"format": "n5"}, "no .n5 container"),
        ({"block_shape": [5, 12]}, "'block_shape"),
        ({"context": [-1, 0, 0]}, "'context"),
        ({"fragments": {"method": "magic"}}, "'fragments'"),
        ({"fragments": {"method": "watershed", "strides": [1, 1, 1]}}, "strides"),
        ({"edges": {"scores": "median"}}, "'edges.scores'"),
    ],
)
def test_wrong_keys_are_refused(affinities, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        segment(affinities, tmp_path, **options)


def test_outputs_and_inputs_must_not_lie_in_each_other(affinities, tmp_path):
    for path in (affinities, f"{affinities}/seg.zarr"):
        with pytest.raises(ConfigError, match="lie in each other"):
            segment(affinities, tmp_path, output=path)
    container = str(tmp_path / "in.zarr")
    for name in ("fragments", "segments/0.5", "graph/edges"):
        with pytest.raises(ConfigError, match="lie in each other"):
            segment(f"{container}/{name}", tmp_path, output=container)
        with pytest.raises(ConfigError, match="lie in each other"):
            segment(affinities, tmp_path, output=container, mask=f"{container}/{name}")
    beside = affinities.removesuffix("/affinities")
    assert segment(affinities, tmp_path, output=beside).outputs_root() == beside


def test_super_blocks_that_do_not_grow_are_refused(affinities, tmp_path):
    with pytest.raises(ConfigError, match=r"super_block \(2, 1, 2\) is 1 along an axis"):
        segment(affinities, tmp_path, super_block=[2, 1, 2]).steps()

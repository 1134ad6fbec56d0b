"""Metric masks on blocks: the zone of the whole volume, whatever the blocks are."""

import numpy as np
import pytest
from scipy import ndimage

from blockwise import assert_one_block_equals_many, assert_retry_equals_once
from em_blocks.errors import ConfigError
from em_blocks.kernels.images.exclusion_zone import zone_in_nm, zone_in_voxels
from em_blocks.tasks.preparation.metric_mask import ZONES, MetricMask
from preparing import FRAME, checked, done, volume, voxels

SHAPE = (12, 37, 45)


def objects(seed=0):
    """A few ids, some of which touch."""
    noise = np.random.default_rng(seed).random((4, *SHAPE))
    found = np.stack([ndimage.gaussian_filter(n, 2.0, mode="wrap") for n in noise]).argmax(axis=0)
    return np.where(found > 1, found, 0).astype("uint16")


def masking(source, folder, name="a", **options):
    zone = {} if {"organelle", "outwards"} & options.keys() else {"organelle": "mitochondria"}
    return MetricMask.from_dict({
        "kind": "metric_mask", "run": "counts", "labels": source.path, "chunk_shape": [4, 8, 8],
        "output": str(folder / name / "out.zarr/counts"), "block_shape": [4, 8, 16], **zone, **options,
    })


ZONE_OPTIONS = [
    {"organelle": "mitochondria"}, {"outwards": 5, "inwards": 1, "contacts": True},
    {"outwards": 14.0, "inwards": 41.0, "unit": "nm"},
    {"outwards": 9.3, "inwards": 9.3, "unit": "nm", "contacts": True}, {"outwards": 0, "inwards": 0},
]


@pytest.mark.parametrize("options", ZONE_OPTIONS)
def test_no_voxel_depends_on_the_blocks(tmp_path, options):
    source, ids = volume(tmp_path, objects(), "labels"), objects()
    outwards, inwards = (options.get(k, 4) for k in ("outwards", "inwards"))
    ways = {"outwards": outwards, "inwards": inwards, "contacts": options.get("contacts", False)}
    if options.get("unit") == "nm":
        expected = ~zone_in_nm(ids, voxel_size=FRAME.voxel_size, **ways)
    else:
        expected = ~zone_in_voxels(ids, **ways)
    for n, block_shape in enumerate([(4, 8, 8), (4, 40, 16), (12, 40, 48)]):
        made, counts = done(masking(source, tmp_path, f"b{n}", block_shape=block_shape, **options))
        np.testing.assert_array_equal(voxels(made), expected)
        assert counts["counted_voxels"] == expected.sum()
    assert made.frame == FRAME and made.dtype == np.uint8
    assert expected.all() == (outwards == 0)


@pytest.mark.parametrize("organelle", ZONES)
def test_an_organelle_has_its_zone(tmp_path, organelle):
    outwards, inwards = ZONES[organelle]
    made, _ = done(masking(volume(tmp_path, objects(), "labels"), tmp_path, organelle=organelle))
    zone = zone_in_voxels(objects(), outwards=outwards, inwards=inwards)
    np.testing.assert_array_equal(voxels(made) == 0, zone)


def test_only_the_named_ids_are_objects(tmp_path):
    source = volume(tmp_path, objects(), "labels")
    assert set(np.unique(objects())) == {0, 2, 3}
    made, _ = done(masking(source, tmp_path, ids=[3]))
    one = np.where(objects() == 3, 3, 0)
    np.testing.assert_array_equal(voxels(made) == 0, zone_in_voxels(one, outwards=4, inwards=4))


def test_thick_sections_are_not_left_out_in_nm(tmp_path):
    """41 nm are one section and 8 voxels within it."""
    source = volume(tmp_path, objects(), "labels")
    task = masking(source, tmp_path, outwards=41, inwards=10, unit="nm")
    assert task.read_context() == (2, 9, 9)
    assert masking(source, tmp_path, outwards=2, inwards=5).read_context() == (5, 5, 5)


def test_workers_make_the_same_and_blocks_done_again_change_nothing(tmp_path):
    source = volume(tmp_path, objects(), "labels")

    def make(block_shape, name):
        return masking(source, tmp_path, name, block_shape=block_shape, num_workers=2)

    assert_one_block_equals_many(make, [(4, 16, 16), (8, 40, 24)], whole=(12, 40, 48))
    assert_retry_equals_once(make((4, 40, 48), "again"), make((4, 40, 48), "once"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"organelle": "golgi", "outwards": 2, "inwards": 2}, "either by 'organelle'"),
        ({"outwards": 2}, "either by 'organelle'"),
        ({"organelle": None}, "either by 'organelle'"),
        ({"organelle": "golgi", "unit": "nm"}, "leave 'unit' out"),
        ({"outwards": 2.5, "inwards": 2}, "whole voxels wide"),
        ({"organelle": "nucleus"}, "'organelle'"), ({"outwards": -1, "inwards": 2}, "'outwards'"),
        ({"ids": []}, "'ids'"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        masking(volume(tmp_path, objects(), "labels"), tmp_path, **options)


def test_what_is_no_label_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="one integer id per"):
        checked(masking(volume(tmp_path, objects().astype("float32"), "labels"), tmp_path))

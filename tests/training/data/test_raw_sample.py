"""The sample of a raw volume that is looked at before work starts."""

import numpy as np
import pytest

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.training.data.raw_sample import RawSample
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))


def volume(folder, values, chunk_shape=(16, 16, 16)):
    raw = Volume.create(str(folder / "raw.zarr/raw"), shape=values.shape, dtype=values.dtype,
                        frame=FRAME, chunk_shape=chunk_shape)
    raw.write(raw.box, values)
    return raw


def noise(shape, dtype="uint8"):
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


def test_a_small_volume_is_read_as_a_whole(tmp_path):
    values = noise((20, 50, 40))
    sample = RawSample(volume(tmp_path, values), Box((0, 0, 0), values.shape))
    assert sample.values.size == values.size
    assert sample.tails == pytest.approx(tuple(np.percentile(values, (0.5, 99.5))))
    assert sample.remarks() == [] and sample.useless() is None and sample.bad() is None


def test_a_large_volume_is_sampled_from_end_to_end_within_the_box(tmp_path):
    raw = Volume.create(str(tmp_path / "r.zarr/raw"), shape=(400, 600, 900), dtype="uint8",
                        frame=FRAME, chunk_shape=(32, 32, 32))
    box = Box((40, 100, 200), (350, 450, 690))
    cubes = [cube.box for cube in RawSample(raw, box).cubes]
    assert len(cubes) == 64 and all(box.contains(cube) for cube in cubes)
    assert all(cube.size <= 64**3 for cube in cubes)
    for axis in range(3):
        assert min(c.offset[axis] for c in cubes) == box.offset[axis]
        assert max(c.end[axis] for c in cubes) > box.end[axis] - 64 - 32
    assert [c.box for c in RawSample(raw, box).cubes] == cubes  # always the same


def test_flat_chunks_of_large_sections_are_not_read_64_at_a_time(tmp_path):
    raw = Volume.create(str(tmp_path / "r.zarr/raw"), shape=(300, 4000, 6000), dtype="uint8",
                        frame=FRAME, chunk_shape=(1, 4000, 6000))
    cubes = [cube.box for cube in RawSample(raw, Box((0, 0, 0), raw.shape)).cubes]
    assert {cube.shape[0] for cube in cubes} == {1}
    assert len({cube.offset[1:] for cube in cubes}) == 16  # from all over the sections


def test_nan_and_infinity_are_named_with_voxel_and_nm(tmp_path):
    values = noise((20, 50, 40), "float32")
    values[3, 5, 7], values[10, 20, 30] = np.nan, np.inf
    sample = RawSample(volume(tmp_path, values), Box((0, 0, 0), values.shape))
    nan, infinite = sample.remarks()
    assert "NaN" in nan and "voxel (3, 5, 7) at (540.0, 71.3, 43.7) nm" in nan
    assert "infinite" in infinite and "voxel (10, 20, 30)" in infinite
    assert sample.bad() == f"{nan}; {infinite}"
    assert sample.values.size == values.size - 2


def test_a_box_that_begins_elsewhere_names_voxels_of_the_volume(tmp_path):
    values = noise((40, 50, 40), "float32")
    values[23, 35, 17] = np.nan
    sample = RawSample(volume(tmp_path, values), Box((16, 16, 16), (20, 30, 20)))
    assert "voxel (23, 35, 17)" in sample.bad()


def test_constant_boxes_are_named(tmp_path):
    values = noise((16, 16, 260))
    values[..., :128] = 9
    sample = RawSample(volume(tmp_path, values), Box((0, 0, 0), values.shape))
    (remark,) = sample.remarks()
    assert "2 of 4 sampled boxes are constant" in remark and "voxel (0, 0, 0)" in remark
    assert sample.useless() is None


@pytest.mark.parametrize(
    ("value", "words"), [(7, "7.0 everywhere"), (np.nan, "no number at all")]
)
def test_a_sample_without_any_content_is_useless(tmp_path, value, words):
    values = np.full((8, 16, 16), value, "float32")
    sample = RawSample(volume(tmp_path, values), Box((0, 0, 0), values.shape))
    assert words in sample.useless()


@pytest.mark.parametrize(("share", "said"), [(0.09, False), (0.11, True)])
def test_clipped_intensities_are_named_from_a_tenth_of_the_voxels(tmp_path, share, said):
    values = noise((10, 50, 40))
    values.reshape(-1)[: int(share * values.size)] = 255
    sample = RawSample(volume(tmp_path, values), Box((0, 0, 0), values.shape))
    assert any("clipped" in remark for remark in sample.remarks()) is said


def test_a_broken_chunk_is_named_and_the_others_are_looked_at(tmp_path):
    values = noise((20, 50, 40))
    raw = volume(tmp_path, values)
    (tmp_path / "raw.zarr/raw/1/2/0").write_bytes(b"garbage")
    sample = RawSample(raw, Box((0, 0, 0), values.shape))
    (remark,) = sample.remarks()
    assert "1 of 24 sampled boxes are unreadable, from voxel (16, 32, 0)" in remark
    assert sample.values.size == values.size - 4 * 16 * 16


def test_a_volume_of_which_nothing_can_be_read_is_an_error(tmp_path):
    raw = volume(tmp_path, noise((16, 16, 16)))
    (tmp_path / "raw.zarr/raw/0/0/0").write_bytes(b"garbage")
    with pytest.raises(VolumeError, match="0/0/0"):
        RawSample(raw, raw.box)

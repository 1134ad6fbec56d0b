"""Volumes as arrays: indices mean what they mean to numpy, and what is not read is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.errors import EmBlocksError, GeometryError
from em_blocks.geometry import Box, Frame, Roi
from em_blocks.volumes import Volume
from em_blocks.volumes.indexing import basic_index

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (7, 10, 12)


def volume_at(path, channels=None):
    volume = Volume.create(str(path), shape=SHAPE, dtype="uint16", frame=FRAME, channels=channels,
                           chunk_shape=(4, 5, 6))
    lead = () if channels is None else (channels,)
    values = np.arange(np.prod(lead + SHAPE), dtype="uint16").reshape(lead + SHAPE)
    volume.write(volume.box, values)
    return volume, values


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return volume_at(tmp_path_factory.mktemp("plain") / "v.zarr/raw")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return volume_at(tmp_path_factory.mktemp("many") / "v.zarr/affinities", channels=3)


def indices(shape):
    """Up to one index per axis, with an ellipsis or without."""
    def of(size):
        bound = st.none() | st.integers(-2 * size, 2 * size)
        return st.integers(-size, size - 1) | st.builds(slice, bound, bound)

    def with_ellipsis(parts, cut):
        # What follows an ellipsis indexes the last axes: these sizes must hold there as well.
        return (*parts[:cut], Ellipsis, *(slice(None) for _ in parts[cut:]))

    whole = st.tuples(*map(of, shape))
    some = st.integers(0, len(shape)).flatmap(lambda n: st.tuples(*map(of, shape[:n])))
    return whole | some | st.builds(with_ellipsis, some, st.integers(0, len(shape)))


@given(key=indices(SHAPE))
def test_an_index_reads_what_numpy_gives(plain, key):
    volume, values = plain
    np.testing.assert_array_equal(volume[key], values[key])


@given(key=indices((3, *SHAPE)))
def test_channels_come_first(many, key):
    volume, values = many
    found = volume[key]
    np.testing.assert_array_equal(found, values[key])
    assert found.dtype == values.dtype


def test_one_index_without_a_tuple(plain):
    volume, values = plain
    for key in (3, -1, np.int64(2), slice(2, -1), Ellipsis):
        np.testing.assert_array_equal(volume[key], values[key])


@pytest.mark.parametrize(("key", "what"), [
    (7, "Index 7 is outside of axis 0"), ((0, -11), "Index -11 is outside of axis 1"),
    (slice(0, 6, 2), "step .* is 2"), (slice(None, None, -1), "is -1"),
    ((0, 0, 0, 0), "4 indices"), ((..., 0, ...), "2 ellipses"),
    ([1, 2], "no integer and no slice"), (True, "no integer"), (None, "no integer"),
    (np.zeros(SHAPE, bool), "no integer"), (1.5, "1.5 on axis 0"),
])
def test_what_is_no_basic_index_is_refused(plain, key, what):
    with pytest.raises(IndexError, match=what):
        plain[0][key]


def test_a_step_of_one_is_no_step():
    assert basic_index(slice(2, 5, 1), (7,), "v") == (slice(2, 5),)


def test_a_box_counts_voxels_and_a_roi_is_of_the_world(plain):
    volume, values = plain
    box = Box((2, 3, 4), (3, 2, 5))
    np.testing.assert_array_equal(volume[box], values[box.slices])
    roi = Roi((400 + 2 * 40, 46 + 3 * 4.6, 9.2 + 4 * 4.6), (3 * 40, 2 * 4.6, 5 * 4.6))
    np.testing.assert_array_equal(volume[roi], values[box.slices])
    with pytest.raises(GeometryError, match="leave the volume"):
        volume[Box((6, 0, 0), (2, 1, 1))]


def test_a_volume_is_an_array_for_numpy(plain, many):
    for volume, values in (plain, many):
        np.testing.assert_array_equal(np.asarray(volume), values)
        assert np.asarray(volume, dtype="float32").dtype == np.float32
        assert np.mean(volume) == values.mean()
        assert volume.ndim == values.ndim
        with pytest.raises(ValueError, match="without a copy"):
            np.array(volume, copy=False)


def test_a_volume_tells_what_it_is(plain, many):
    assert plain[0].voxel_size == (40.0, 4.6, 4.6) and plain[0].offset == (400.0, 46.0, 9.2)
    assert repr(plain[0]) == (
        f"<Volume {plain[0].path}: (7, 10, 12) uint16, voxel size (40.0, 4.6, 4.6) nm, "
        "offset (400.0, 46.0, 9.2) nm (z, y, x)>"
    )
    assert ": 3 x (7, 10, 12) uint16" in repr(many[0])


def test_chunks_cover_every_voxel_once(many):
    volume, values = many
    seen, boxes = np.zeros_like(values), list(volume.chunks())
    for box in boxes:
        seen[(..., *box.slices)] += volume[box] + 1
    np.testing.assert_array_equal(seen, values + 1)
    assert len(boxes) == 8 and boxes[0].shape == (4, 5, 6) and boxes[-1].shape == (3, 5, 6)


def test_dask_reads_the_same_chunk_by_chunk(many):
    pytest.importorskip("dask.array")
    volume, values = many
    lazy = volume.to_dask()
    assert lazy.shape == values.shape and lazy.dtype == values.dtype
    assert lazy.chunks == ((3,), (4, 3), (5, 5), (6, 6))
    np.testing.assert_array_equal(lazy[1, 2:6, :, 5:].compute(scheduler="synchronous"),
                                  values[1, 2:6, :, 5:])


def test_a_chunk_that_cannot_be_read_is_named(tmp_path):
    volume, _ = volume_at(tmp_path / "v.zarr/raw")
    chunk = next(p for p in (tmp_path / "v.zarr/raw").rglob("0") if p.is_file())
    chunk.write_bytes(b"no chunk")
    with pytest.raises(EmBlocksError, match=r"Voxels .* of .*raw cannot be read"):
        Volume.open(volume.path)[0]

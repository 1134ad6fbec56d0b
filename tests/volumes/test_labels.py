"""Volumes of ids: any format, any place in the world, or an error that says what is wrong."""

import h5py
import numpy as np
import pytest

from em_blocks.errors import ConfigError, GeometryError, VolumeError
from em_blocks.geometry import Box, Frame, Roi
from em_blocks.volumes import Volume
from em_blocks.volumes.labels import open_labels, placed, read_in, shared_region

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (7, 12, 15)


def labels_of(shape=SHAPE, seed=0, dtype="uint64"):
    return np.random.default_rng(seed).integers(0, 50, shape).astype(dtype)


def make_volume(folder, name, values, frame=FRAME, channels=None):
    volume = Volume.create(
        str(folder / "v.zarr" / name), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(4, 5, 6), channels=channels,
    )
    volume.write(volume.box, values)
    return volume.path


def make_hdf5(path, values, *, transforms=None, chunks=None, **attributes):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("volumes/stack", data=values, chunks=chunks)
        dataset.attrs.update(attributes)
        if transforms is not None:
            file["volumes/transforms"] = transforms
        file["table"] = np.zeros((3, 2))
    return f"{path}:volumes/stack"


def test_a_volume_and_an_hdf5_file_are_read_alike(tmp_path):
    values = labels_of()
    place = {"resolution": FRAME.voxel_size, "offset": FRAME.offset}
    for path in (
        make_volume(tmp_path, "a", values),
        make_hdf5(tmp_path / "a.h5", values, chunks=(4, 5, 6), **place),
    ):
        with open_labels(path) as labels:
            assert (labels.shape, labels.frame, labels.chunk_shape) == (SHAPE, FRAME, (4, 5, 6))
            np.testing.assert_array_equal(labels.read(labels.box), values)


def test_bodies_are_read_where_the_file_has_a_table_of_them(tmp_path):
    values = np.arange(1, 5, dtype=np.uint32).reshape(1, 2, 2)
    table = np.array([[1, 10], [2, 20], [3, 10], [4, 2**40]], np.uint64)
    with open_labels(make_hdf5(tmp_path / "a.h5", values, transforms=table)) as labels:
        read = labels.read(labels.box)
    np.testing.assert_array_equal(read, [[[10, 20], [10, 2**40]]])
    assert labels.frame is None and labels.dtype == np.uint64


def test_ids_at_points_are_those_of_the_voxels_around_them(tmp_path):
    values = labels_of()
    random = np.random.default_rng(1)
    voxels = random.integers(-2, np.array(SHAPE) + 2, (200, 3))
    positions = (voxels + random.uniform(0.01, 0.99, (200, 3))) * FRAME.voxel_size + FRAME.offset
    with open_labels(make_volume(tmp_path, "a", values)) as labels:
        ids, inside = labels.at(positions)
        none, nowhere = labels.at(np.zeros((0, 3)))
    expected = ((voxels >= 0) & (voxels < SHAPE)).all(axis=1)
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_array_equal(ids[inside], values[tuple(voxels[inside].T)])
    assert not ids[~inside].any() and none.size == nowhere.size == 0


def test_points_are_looked_up_chunk_by_chunk(tmp_path):
    values = labels_of()
    boxes = []
    with open_labels(make_volume(tmp_path, "a", values)) as labels:
        read = labels.read
        object.__setattr__(labels, "read", lambda box: boxes.append(box) or read(box))
        labels.at(np.random.default_rng(0).uniform(0, 1, (500, 3)) * [280, 55, 69] + FRAME.offset)
    corners = [tuple(o // c for o, c in zip(box.offset, (4, 5, 6))) for box in boxes]
    assert len(corners) == len(set(corners)) <= 2 * 3 * 3
    assert all(s <= c for box in boxes for s, c in zip(box.shape, (4, 5, 6)))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{0}/a.h5", r"a.h5 does not name a dataset. Write FILE:DATASET; .*a.h5:volumes/stack"),
        ("{0}/a.h5/volumes/stack", "Write FILE:DATASET"),
        ("{0}/a.h5:raw", r"no dataset 'raw' in .*It holds: table, volumes/stack"),
        ("{0}/a.h5:table", "a volume"),
        ("{0}/none.h5:stack", "cannot be opened"),
        ("{0}/none.h5", "it does not exist"),
        ("{0}/none.zarr/x", "There is no volume"),
        ("{0}/v.zarr", "name one of its arrays: floats, heads"),
        ("{0}/v.zarr/floats", r"floats holds float32 values of shape \(7, 12, 15\), but one integer"),
        ("{0}/v.zarr/heads", r"shape \(2, 7, 12, 15\), but one integer"),
    ],
)
def test_what_holds_no_ids_is_refused(tmp_path, path, words):
    make_hdf5(tmp_path / "a.h5", labels_of())
    make_volume(tmp_path, "floats", labels_of().astype("float32"))
    make_volume(tmp_path, "heads", labels_of((2, *SHAPE)), channels=2)
    with pytest.raises((ConfigError, VolumeError), match=words):
        with open_labels(path.format(tmp_path)):
            pass


@pytest.fixture
def opened(tmp_path):
    """A function that opens new volumes at these frames, of these shapes."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def opened(*places):
            paths = [
                make_volume(tmp_path, str(n), labels_of(shape, n), frame)
                for n, (frame, shape) in enumerate(places)
            ]
            return [stack.enter_context(open_labels(path)) for path in paths]

        yield opened


def test_volumes_share_the_region_where_they_overlap(opened):
    shifted = Frame(FRAME.voxel_size, FRAME.to_roi(Box((2, 3, -1), (1, 1, 1))).offset)
    one, two = opened((FRAME, SHAPE), (shifted, SHAPE))
    frame, shape = shared_region([one, two])
    assert shape == (5, 9, 14)
    assert FRAME.to_box(frame.to_roi(Box((0, 0, 0), shape))).offset == (2, 3, 0)
    box = Box((1, 2, 3), (2, 2, 2))
    np.testing.assert_array_equal(read_in(one, frame, box), one.read(box.shift((2, 3, 0))))
    np.testing.assert_array_equal(read_in(two, frame, box), two.read(box.shift((0, 0, 1))))
    roi = FRAME.to_roi(Box((3, 0, 0), (9, 9, 9)))
    assert shared_region([one, two], roi)[1] == (4, 6, 9)


def test_volumes_that_cannot_be_compared_are_refused(opened):
    one, coarse, part, far = opened(
        (FRAME, SHAPE), (Frame((40, 4, 4), FRAME.offset), SHAPE),
        (Frame(FRAME.voxel_size, (400.0, 46.0, 10.2)), SHAPE), (Frame(FRAME.voxel_size), (2, 3, 4)),
    )
    with pytest.raises(ConfigError, match=r"voxels of \(40.0, 4.6, 4.6\) nm and .* \(40.0, 4.0"):
        shared_region([one, coarse])
    with pytest.raises(GeometryError, match="do not lie on one grid: their offsets are"):
        shared_region([one, part])
    with pytest.raises(ConfigError, match=r"no voxel that all volumes cover: .*0 covers \(400.0"):
        shared_region([one, far])
    with pytest.raises(ConfigError, match=r"the ROI is \(0.0, 0.0, 0.0\) to"):
        shared_region([one], Roi((0, 0, 0), (40, 46, 4.6)))


def test_a_file_without_a_place_takes_that_of_a_volume_of_its_shape(tmp_path):
    path = make_volume(tmp_path, "a", labels_of())
    with (
        open_labels(path) as here,
        open_labels(make_hdf5(tmp_path / "same.h5", labels_of())) as same,
        open_labels(make_hdf5(tmp_path / "other.h5", labels_of((7, 12, 14)))) as other,
    ):
        assert [v.frame for v in placed([same, here])] == [FRAME, FRAME]
        assert placed([same, same])[0].frame == Frame((1, 1, 1))
        for volumes in ([here, other], [same, other]):
            with pytest.raises(ConfigError, match=r"other.h5:volumes/stack has no attribute 'resolu"):
                placed(volumes)
        for need in (lambda v: v.at(np.zeros((1, 3))), lambda v: shared_region([v, here])):
            with pytest.raises(ConfigError, match=r"the place of its \(7, 12, 14\) voxels is unknown"):
                need(other)

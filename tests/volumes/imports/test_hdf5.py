"""HDF5 sources: CREMI layout, supervoxels with a table of bodies."""

import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.hdf5 import Hdf5Dataset, Hdf5Transforms, apply_mapping

SHAPE = (6, 10, 12)


def random_values(dtype="uint8", high=255):
    return np.random.default_rng(0).integers(0, high, SHAPE).astype(dtype)


def write(path, **datasets):
    """An HDF5 file of datasets; a value is an array, or (array, attributes)."""
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            values, attributes = value if isinstance(value, tuple) else (value, {})
            file.create_dataset(name.replace("__", "/"), data=values).attrs.update(attributes)
    return path


def dataset(path, name="volumes/raw"):
    return Hdf5Dataset(type="hdf5", path=path, dataset=name)


def transforms(path):
    return Hdf5Transforms(type="hdf5_transforms", path=path)


def refused(source):
    with pytest.raises(ConfigError) as caught:
        source.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_all(source):
    with source.open() as read:
        return read(Box((0, 0, 0), SHAPE))


def test_position_and_dtype_come_from_a_cremi_file(tmp_path):
    position = {"resolution": (40.0, 4.0, 4.6), "offset": (400.0, 0.0, -46.0)}
    values = (random_values("uint64"), position)
    path = write(tmp_path / "a.hdf", volumes__labels__neuron_ids=values)
    source = dataset(path, "volumes/labels/neuron_ids")
    source.check()
    assert source.header() == (SHAPE, np.uint64, (40.0, 4.0, 4.6), (400.0, 0.0, -46.0), None, None)
    np.testing.assert_array_equal(read_all(source), random_values("uint64"))


def test_a_file_without_position_says_nothing(tmp_path):
    header = dataset(write(tmp_path / "a.h5", volumes__raw=random_values())).header()
    assert (header.voxel_size, header.offset) == (None, None)


def test_a_box_is_the_same_part_as_in_h5py(tmp_path):
    with dataset(write(tmp_path / "a.h5", volumes__raw=random_values())).open() as read:
        np.testing.assert_array_equal(
            read(Box((1, 2, 3), (4, 5, 6))), random_values()[1:5, 2:7, 3:9]
        )


def test_big_endian_values_become_native(tmp_path):
    source = dataset(write(tmp_path / "a.h5", volumes__raw=random_values(">u2")))
    assert source.header().dtype.isnative
    assert read_all(source).dtype.isnative
    np.testing.assert_array_equal(read_all(source), random_values())


def test_a_missing_file_or_one_that_is_not_hdf5_is_an_error(tmp_path):
    assert f"{tmp_path}/none.h5 cannot be opened" in refused(dataset(tmp_path / "none.h5"))
    (tmp_path / "text.h5").write_text("no")
    assert "cannot be opened" in refused(dataset(tmp_path / "text.h5"))
    with pytest.raises(ConfigError, match="cannot be opened"):
        dataset(tmp_path / "none.h5").identity()


def test_a_missing_dataset_is_an_error_that_names_the_others(tmp_path):
    path = write(tmp_path / "a.h5", volumes__raw=random_values(), labels=random_values())
    message = refused(dataset(path, "volumes/row"))
    assert "no dataset 'volumes/row'" in message
    assert "labels, volumes/raw" in message
    assert "no dataset 'volumes'" in refused(dataset(path, "volumes"))


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 4), "u1"), ((0, 3, 4), "u1"), (SHAPE, "complex64"), (SHAPE, "S3")]
)
def test_a_dataset_that_is_no_volume_of_numbers_is_an_error(tmp_path, shape, dtype):
    path = write(tmp_path / "a.h5", volumes__raw=np.zeros(shape, dtype))
    message = refused(dataset(path))
    assert str(shape) in message
    assert "is needed" in message


@pytest.mark.parametrize("shape", [(1, *SHAPE), (*SHAPE, 1), (1, 1, *SHAPE), (1, *SHAPE, 1)])
def test_axes_of_one_entry_that_nothing_names_are_dropped(tmp_path, shape):
    path = write(tmp_path / "a.h5", volumes__raw=random_values().reshape(shape))
    source = dataset(path)
    source.check()
    assert source.header().full_shape == SHAPE
    np.testing.assert_array_equal(read_all(source), random_values())


def test_several_channels_are_read_whole(tmp_path):
    values = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    source = dataset(write(tmp_path / "a.h5", volumes__raw=values))
    source.check()
    assert (source.header().channels, source.header().shape) == (3, SHAPE)
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (4, 5, 6))), values[:, 1:5, 2:7, 3:9])


def test_true_and_false_are_1_and_0(tmp_path):
    mask = random_values() > 100
    source = dataset(write(tmp_path / "a.h5", volumes__raw=mask))
    source.check()
    assert source.header().dtype == read_all(source).dtype == np.uint8
    np.testing.assert_array_equal(read_all(source), mask.astype(int))


def test_negative_labels_stay_negative(tmp_path):
    labels = random_values("int16") - np.int16(7)
    source = dataset(write(tmp_path / "a.h5", volumes__raw=labels))
    assert source.header().dtype == np.int16
    np.testing.assert_array_equal(read_all(source), labels)
    assert read_all(source).min() == -7


def test_a_file_compressed_with_a_filter_of_hdf5plugin_is_read(tmp_path):
    import hdf5plugin

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "volumes/raw", data=random_values(), chunks=(2, 5, 6), **hdf5plugin.Blosc2(cname="zstd")
        )
    # In a process that has not loaded the filters, as this one has.
    code = (
        "import sys, numpy as np; from em_blocks.geometry import Box; "
        "from em_blocks.volumes.imports.hdf5 import Hdf5Dataset; "
        "source = Hdf5Dataset(type='hdf5', path=sys.argv[1], dataset='volumes/raw'); source.check()\n"
        f"with source.open() as read: np.save(sys.argv[2], read(Box((0, 0, 0), {SHAPE})))"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.h5", tmp_path / "values.npy"]
    subprocess.run(command, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), random_values())


@pytest.mark.parametrize("bad", [(40.0, 4.0), "40 nm"])
def test_position_attributes_that_make_no_sense_are_an_error(tmp_path, bad):
    path = write(tmp_path / "a.h5", volumes__raw=(random_values(), {"resolution": bad}))
    with pytest.raises(VolumeError, match="'resolution'"):
        dataset(path).header()


def test_a_damaged_chunk_is_an_error_with_the_path(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset(
            "volumes/raw", data=random_values(), chunks=(2, 10, 12), compression="gzip"
        )
        where = array.id.get_chunk_info(1).byte_offset
    data = bytearray(path.read_bytes())
    data[where : where + 40] = bytes(40)
    path.write_bytes(data)
    source = dataset(path)
    source.check()
    with pytest.raises(VolumeError, match=f"volumes/raw in {path} cannot be read"):
        read_all(source)


# -- supervoxels and bodies ------------------------------------------------------------


def table(pairs, dtype="uint64"):
    return np.array(list(pairs), dtype).reshape(-1, 2)


def test_bodies_are_stored_and_background_stays(tmp_path):
    stack = random_values("uint32", 5)
    bodies = {1: 2**40, 2: 7, 3: 7, 4: 0}
    source = transforms(write(tmp_path / "a.h5", stack=stack, transforms=table(bodies.items())))
    source.check()
    values = read_all(source)
    assert source.header().dtype == values.dtype == np.uint64
    expected = [[[bodies.get(v, v) for v in row] for row in plane] for plane in stack.tolist()]
    np.testing.assert_array_equal(values, np.array(expected, np.uint64))


def test_background_is_mapped_where_the_table_says_so(tmp_path):
    stack = random_values("uint32", 2)
    path = write(tmp_path / "a.h5", stack=stack, transforms=table([(0, 9), (1, 3)]))
    np.testing.assert_array_equal(read_all(transforms(path)), np.where(stack == 0, 9, 3))


def test_a_supervoxel_without_body_is_an_error_that_names_it(tmp_path):
    path = write(
        tmp_path / "a.h5", stack=random_values("uint32", 5), transforms=table([(1, 1), (2, 2)])
    )
    with pytest.raises(VolumeError, match=r"2 supervoxels have no body .* \[3, 4\]"):
        read_all(transforms(path))


def test_a_supervoxel_beyond_the_last_row_is_an_error_too(tmp_path):
    path = write(
        tmp_path / "a.h5", stack=np.full(SHAPE, 99, np.uint32), transforms=table([(1, 1)])
    )
    with pytest.raises(VolumeError, match=r"\[99\]"):
        read_all(transforms(path))


@given(
    hnp.arrays(np.uint32, (2, 3, 4), elements=st.integers(0, 9)),
    st.dictionaries(st.integers(0, 9), st.integers(0, 2**63 - 1), min_size=10),
)
def test_mapping_equals_a_dictionary(values, bodies):
    rows = table(sorted(bodies.items()))
    mapped = apply_mapping(values, *rows.T)
    assert mapped.ravel().tolist() == [bodies[v] for v in values.ravel().tolist()]


def test_the_same_row_twice_does_no_harm_but_two_bodies_are_an_error(tmp_path):
    stack = np.ones(SHAPE, np.uint32)
    path = write(tmp_path / "a.h5", stack=stack, transforms=table([(1, 5), (1, 5)]))
    transforms(path).check()
    assert (read_all(transforms(path)) == 5).all()
    path = write(tmp_path / "b.h5", stack=stack, transforms=table([(1, 5), (2, 2), (1, 6)]))
    assert "more than one body, for example [1]" in refused(transforms(path))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.zeros((0, 2), np.uint64), "is empty"),
        (np.zeros((4, 3), np.uint64), "a table (n, 2)"),
        (np.zeros((4, 2), np.float32), "ids are integers"),
    ],
)
def test_a_table_that_is_none_is_an_error(tmp_path, rows, reason):
    path = write(tmp_path / "a.h5", stack=np.ones(SHAPE, np.uint32), transforms=rows)
    assert reason in refused(transforms(path))


def test_a_missing_table_is_an_error(tmp_path):
    path = write(tmp_path / "a.h5", stack=np.ones(SHAPE, np.uint32))
    assert "no dataset 'transforms'" in refused(transforms(path))


def test_a_copied_or_touched_file_is_the_same_and_a_changed_value_is_not(tmp_path):
    values = np.random.default_rng(2).integers(0, 255, (7, 70, 65)).astype(np.uint8)
    first = write_hdf5(tmp_path / "a.h5", values)
    copy = Hdf5Dataset(type="hdf5", path=tmp_path / "b.h5", dataset="raw")
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    os.utime(tmp_path / "b.h5", (1, 1))
    assert copy.identity() == first.identity()
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["raw"][6, 69, 64] ^= 1
    os.utime(tmp_path / "b.h5", (1, 1))
    assert copy.identity() != first.identity()


def write_hdf5(path, values) -> Hdf5Dataset:
    with h5py.File(path, "w") as file:
        file["raw"] = values
        file["raw"].attrs["resolution"] = (40.0, 4.6, 4.6)
    return Hdf5Dataset(type="hdf5", path=path, dataset="raw")

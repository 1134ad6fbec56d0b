"""Volumes of zarr, N5 and precomputed as sources."""

import json

import numpy as np
import pytest
import zarr

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.stored_volume import StoredVolume

SHAPE = (6, 10, 12)
FRAME = Frame((50, 4.6, 4.6), (-100, 46, 9.2))


def values(dtype="uint8", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def source(path, **options):
    return StoredVolume(type="volume", path=str(path), **options)


def read_all(found):
    found.check()
    with found.open() as read:
        return read(Box((0, 0, 0), SHAPE))


def write(path, array, format="zarr", **attributes):
    volume = Volume.create(
        str(path), shape=array.shape[-3:], dtype=array.dtype, frame=FRAME, chunk_shape=(2, 5, 4),
        channels=array.shape[0] if array.ndim == 4 else None, format=format, attributes=attributes,
    )
    volume.write(volume.box, array)
    return volume


@pytest.mark.parametrize("format", ["zarr", "zarr3", "n5", "precomputed"])
def test_every_format_is_read_with_its_place_and_chunks(tmp_path, format):
    write(tmp_path / "a", values("uint16"), format)
    found = source(tmp_path / "a")
    assert found.header() == (SHAPE, np.uint16, FRAME.voxel_size, FRAME.offset, (2, 5, 4), None)
    np.testing.assert_array_equal(read_all(found), values("uint16"))


def test_arrays_of_other_programs_with_single_axes_or_bool_or_negative_labels(tmp_path):
    stored = {
        "single": values()[None, None], "mask": values() > 100, "labels": values("int32") - 9,
        "big": values(">u4"),
    }
    for name, array in stored.items():
        zarr.save_array(str(tmp_path / f"{name}.zarr"), array)
        found = source(tmp_path / f"{name}.zarr")
        header = found.header(VolumeInput(path="a", voxel_size=(8, 4, 4)))
        assert (header.full_shape, header.voxel_size) == (SHAPE, (8, 4, 4))
        assert header.dtype == read_all(found).dtype
        np.testing.assert_array_equal(read_all(found), array.reshape(SHAPE))
        assert header.dtype == ("uint8" if name == "mask" else array.dtype.newbyteorder("="))


def test_channels_are_kept_and_a_single_one_is_dropped(tmp_path):
    write(tmp_path / "a", values(shape=(3, *SHAPE)))
    assert source(tmp_path / "a").header().full_shape == (3, *SHAPE)
    np.testing.assert_array_equal(read_all(source(tmp_path / "a")), values(shape=(3, *SHAPE)))
    write(tmp_path / "b", values(shape=(1, *SHAPE)))
    assert source(tmp_path / "b").header().full_shape == SHAPE
    np.testing.assert_array_equal(read_all(source(tmp_path / "b")), values(shape=(1, *SHAPE))[0])


def test_axes_of_the_config_win(tmp_path):
    zarr.save_array(str(tmp_path / "a.zarr"), values().T)
    found = source(tmp_path / "a.zarr", axes=("x", "y", "z"))
    assert found.header(VolumeInput(path="a", voxel_size=(8, 4, 4))).shape == SHAPE
    np.testing.assert_array_equal(read_all(found), values())


def test_a_place_that_nothing_states_is_asked_for(tmp_path):
    zarr.save_array(str(tmp_path / "a.zarr"), values())
    with pytest.raises(VolumeError, match="does not say how large its voxels are"):
        source(tmp_path / "a.zarr").header()
    np.testing.assert_array_equal(read_all(source(tmp_path / "a.zarr")), values())


def test_what_the_values_mean_is_kept_and_the_rest_is_not(tmp_path):
    write(tmp_path / "a", values(shape=(3, *SHAPE)), scale=255, neighborhood=[[1, 0, 0]], note="x",
          labels=False)
    kept = {"scale": 255, "neighborhood": [[1, 0, 0]], "labels": False}
    assert source(tmp_path / "a").attributes() == kept


def test_the_volume_is_named_as_an_input_with_what_the_config_says_of_it(tmp_path):
    path = str(tmp_path / "a")
    found = source(path)
    assert found.volumes(VolumeInput(path=path)) == {"source": path}
    told = VolumeInput(path=path, voxel_size=(1, 2, 3))
    assert found.volumes(told) == {"source": told}


def test_a_missing_array_a_group_and_other_numbers_are_errors(tmp_path):
    with pytest.raises(VolumeError, match="There is no volume"):
        source(tmp_path / "none").check()
    write(tmp_path / "a.zarr/raw", values())
    with pytest.raises(VolumeError, match="name one of its arrays: raw"):
        source(tmp_path / "a.zarr").check()
    zarr.save_array(str(tmp_path / "b.zarr"), values("complex64"))
    with pytest.raises(ConfigError, match="complex64"):
        source(tmp_path / "b.zarr").check()


def test_the_identity_of_a_volume_that_a_run_made_is_the_run(tmp_path):
    write(tmp_path / "a", values(), fingerprint="f1")
    assert source(tmp_path / "a").identity() == {"fingerprint": "f1"}
    assert json.loads(source(tmp_path / "a").model_dump_json()) == {
        "type": "volume", "path": str(tmp_path / "a")
    }

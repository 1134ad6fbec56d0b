"""Volumes that are read where they lie: arrays, and files that other programs wrote."""

import gzip
import lzma
import pickle
import shutil

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.values import describe, is_file, opened_values

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
VALUES = np.random.default_rng(5).random((7, 9, 11)).astype("float32")
CHANNELS = np.stack([VALUES, 1 - VALUES])
PART = Box((2, 3, 1), (4, 5, 6))


def hdf5(folder, values=VALUES, name="f.h5", **attributes):
    with h5py.File(folder / name, "a") as file:
        file["deep/p"] = values
        file["deep/p"].attrs.update(attributes)
    return f"{folder}/{name}:deep/p"


def numpy_(folder, values=VALUES):
    np.save(folder / "p.npy", values)
    return f"{folder}/p.npy"


def tiff(folder):
    tifffile.imwrite(folder / "p.TIF", VALUES, compression="zlib")
    return f"{folder}/p.TIF"


def mrc(folder):
    with mrcfile.new(folder / "p.mrc") as file:
        file.set_data(VALUES)
    return f"{folder}/p.mrc"


def packed_mrc(folder):
    with open(mrc(folder), "rb") as file, gzip.open(folder / "p.mrc.gz", "wb") as packed:
        shutil.copyfileobj(file, packed)
    return f"{folder}/p.mrc.gz"


def nifti(folder):
    image = nibabel.Nifti1Image(VALUES.T, np.diag([4.6, 4.6, 40, 1]))
    nibabel.save(image, folder / "p.nii.gz")
    return VolumeInput(path=f"{folder}/p.nii.gz", voxel_size=FRAME.voxel_size, offset=FRAME.offset)


def xz(folder):
    with lzma.open(folder / "p.xz", "wb") as file:
        pickle.dump(VALUES, file)
    return f"{folder}/p.xz"


def zarr(folder, values=VALUES):
    volume = Volume.create(
        str(folder / "p.zarr"), shape=values.shape[-3:], dtype="float32", frame=FRAME,
        chunk_shape=(2, 4, 5), channels=len(values) if values.ndim == 4 else None,
        attributes={"classes": ["a", "b"]},
    )
    volume.write(volume.box, values)
    return volume.path


@pytest.mark.parametrize("write", [hdf5, numpy_, tiff, mrc, packed_mrc, nifti, xz, zarr])
def test_the_same_values_are_read_from_every_format(tmp_path, write):
    path = write(tmp_path)
    assert is_file(path) == (write is not zarr)
    with opened_values(path) as found:
        assert (found.shape, found.dtype, found.channels) == (VALUES.shape, np.float32, None)
        np.testing.assert_array_equal(found.read(PART), VALUES[PART.slices])
    known = describe(path)
    assert (known.shape, known.identity) == (found.shape, found.identity) and known.identity


@pytest.mark.parametrize("write", [hdf5, numpy_, zarr])
def test_one_of_several_channels_is_read(tmp_path, write):
    with opened_values(write(tmp_path, CHANNELS)) as found:
        assert (found.shape, found.channels) == (VALUES.shape, 2)
        assert found.full_shape == CHANNELS.shape
        np.testing.assert_array_equal(found.read(PART), CHANNELS[:, *PART.slices])
        np.testing.assert_array_equal(found.read_channel(1, PART), CHANNELS[1][PART.slices])


def test_the_place_is_that_of_the_file_or_of_the_config(tmp_path):
    told = hdf5(tmp_path, resolution=FRAME.voxel_size, offset=FRAME.offset)
    assert describe(told).place == FRAME
    assert describe(told).roi == FRAME.to_roi(Box((0, 0, 0), VALUES.shape))
    silent = numpy_(tmp_path)
    assert describe(silent).frame is None
    with pytest.raises(ConfigError, match=r"p\.npy does not say how large its voxels are") as error:
        _ = describe(silent).place
    assert "attributes resolution" not in str(error.value)
    said = VolumeInput(path=silent, voxel_size=FRAME.voxel_size, offset=FRAME.offset)
    assert describe(said).place == FRAME


def test_content_that_changes_is_noticed(tmp_path):
    path = numpy_(tmp_path)
    before = describe(path).identity
    numpy_(tmp_path, VALUES[:, ::-1])
    assert describe(path).identity != before


def test_folders_and_urls_are_no_files_whatever_their_names(tmp_path):
    (tmp_path / "a.map").mkdir()
    assert not is_file(f"{tmp_path}/a.map")
    assert not is_file("s3://bucket/a.npy")
    assert not is_file(f"{tmp_path}/a.zarr/raw.gz") and is_file(f"{tmp_path}/a.nii.gz")


@pytest.mark.parametrize(("path", "words"), [
    ("absent.npy", "There is no file"), ("f.h5", "does not name a dataset"),
    ("text.npy", "is no array of numpy.save"), ("absent.h5:p", "absent.h5"),
])  # fmt: skip
def test_what_is_no_volume_is_refused(tmp_path, path, words):
    hdf5(tmp_path)
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ConfigError, match=words), opened_values(f"{tmp_path}/{path}"):
        pytest.fail("it was opened")


def test_axes_of_a_format_that_names_its_own_are_refused(tmp_path):
    said = VolumeInput(path=mrc(tmp_path), axes=["x", "y", "z"], voxel_size=FRAME.voxel_size)
    with pytest.raises(ConfigError, match="axes"):
        describe(said)

"""Files of numpy.save and numpy.savez as sources."""

import subprocess
import sys

import numpy as np
import pytest

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.numpy_file import NumpyFile

SHAPE = (30, 40, 70)


def values(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(dtype)


def source(path, **options):
    return NumpyFile(type="numpy", path=path, **options)


def refused(path, **options):
    with pytest.raises(ConfigError) as caught:
        source(path, **options).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_all(path, **options):
    found = source(path, **options)
    found.check()
    with found.open() as read:
        return read(Box((0, 0, 0), found.header().shape))


def save(path, array, kind):
    if kind == "npy":
        np.save(path, array)
    else:
        {"npz": np.savez, "compressed": np.savez_compressed}[kind](path, raw=array)


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
@pytest.mark.parametrize("array", [
    values(), values("int16") - np.int16(9), values(">f4"), np.asfortranarray(values()), values() > 9,
], ids=["uint8", "negative", "big-endian", "fortran", "bool"])
def test_an_array_is_read_as_numpy_reads_it(tmp_path, kind, array):
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    save(path, array, kind)
    found = read_all(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == source(path).header().dtype
    assert found.dtype.isnative and found.dtype.kind != "b"
    with source(path).open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (4, 5, 6))), array[1:5, 2:7, 3:9])


def test_channels_and_single_axes_and_axes_of_the_config(tmp_path):
    channels = np.stack([values(), values() + np.uint8(1)])
    np.save(tmp_path / "a.npy", channels)
    np.testing.assert_array_equal(read_all(tmp_path / "a.npy"), channels)
    np.save(tmp_path / "b.npy", values()[None, ..., None])
    np.testing.assert_array_equal(read_all(tmp_path / "b.npy"), values())
    np.save(tmp_path / "c.npy", np.moveaxis(channels, 0, -1).transpose(2, 1, 0, 3))
    found = read_all(tmp_path / "c.npy", axes=("x", "y", "z", "c"))
    np.testing.assert_array_equal(found, channels)


def test_one_of_several_arrays_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", raw=values(), labels=values("uint32"))
    assert read_all(tmp_path / "a.npz", array="labels").dtype == np.uint32
    assert "there are raw, labels. Name one by the key 'array'" in refused(tmp_path / "a.npz")
    assert "has no array 'row'" in refused(tmp_path / "a.npz", array="row")


def test_the_place_is_what_the_config_says(tmp_path):
    np.save(tmp_path / "a.npy", values())
    assert source(tmp_path / "a.npy").header().voxel_size is None
    header = source(tmp_path / "a.npy").header(VolumeInput(path="a", voxel_size=(50, 4.6, 4.6)))
    assert (header.voxel_size, header.offset) == ((50, 4.6, 4.6), (0, 0, 0))


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}] * 8, object).reshape(2, 2, 2))
    assert "dtype object" in refused(tmp_path / "a.npy")


def test_missing_foreign_and_odd_files_are_errors(tmp_path):
    assert f"no file {tmp_path}/none.npy" in refused(tmp_path / "none.npy")
    (tmp_path / "a.npy").write_text("not an array")
    assert "no array of numpy.save" in refused(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", values()[0])
    assert "(40, 70)" in refused(tmp_path / "b.npy")


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_a_truncated_file_is_found_before_the_start(tmp_path, kind):
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    save(path, values(), kind)
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    assert str(path) in refused(path)


def test_damage_within_a_compressed_array_is_found_before_the_start(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", raw=values())
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[20_000:20_050] = bytes(50)
    (tmp_path / "a.npz").write_bytes(data)
    assert "cannot be unpacked" in refused(tmp_path / "a.npz")


def test_the_identity_is_that_of_the_values_and_the_size(tmp_path):
    np.save(tmp_path / "a.npy", values())
    np.save(tmp_path / "b.npy", values())
    assert source(tmp_path / "a.npy").identity() == source(tmp_path / "b.npy").identity()
    np.save(tmp_path / "b.npy", values() ^ 1)
    assert source(tmp_path / "a.npy").identity() != source(tmp_path / "b.npy").identity()


def test_a_box_of_a_large_file_takes_memory_of_the_box_only(tmp_path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (4000, 1000, 1000)}
        )
        file.truncate(file.tell() + 4 * 10**9)  # sparse
    code = (
        "import sys; from em_blocks.db.commits import peak_memory_mb; "
        "from em_blocks.geometry import Box; "
        "from em_blocks.volumes.imports.numpy_file import NumpyFile; "
        "source = NumpyFile(type='numpy', path=sys.argv[1]); source.check(); source.identity()\n"
        "with source.open() as read: assert read(Box((3990, 0, 0), (10, 100, 100))).sum() == 0\n"
        "print(peak_memory_mb())"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.npy"]
    ended = subprocess.run(command, check=True, capture_output=True)
    assert int(ended.stdout) < 600

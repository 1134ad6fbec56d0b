"""MRC files: axes, voxel size, signs of bytes, byte order."""

import bz2
import gzip

import mrcfile
import numpy as np
import pytest

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.mrc import MrcFile

SHAPE = (5, 6, 7)
TOLD = VolumeInput(path="a", voxel_size=(50, 4.6, 4.6), offset=(1, 2, 3))


def values(dtype="uint16", high=255):
    return np.random.default_rng(0).integers(0, high, SHAPE).astype(dtype)


def write(path, array, voxel_size=(46, 92, 500), **header):
    """A file of the library; voxel size in Angstrom (x, y, z), then fields of the header."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(array)
        file.voxel_size = voxel_size
        for name, value in header.items():
            setattr(file.header, name, value)
    return MrcFile(type="mrc", path=path)


def patch(path, **fields):
    """Change int32 fields of a little-endian header by their byte; `imod` is stamp and flags."""
    places = {"mode": 12, "nxstart": 16, "mapc": 64, "mapr": 68, "maps": 72, "ispg": 88, "nversion": 108,
              "imod_stamp": 152, "imod_flags": 156}
    data = bytearray(path.read_bytes())
    for name, value in fields.items():
        data[places[name] : places[name] + 4] = int(value).to_bytes(4, "little")
    path.write_bytes(data)


def read_all(source):
    source.check()
    with source.open() as read:
        found = read(Box((0, 0, 0), source.header(TOLD).shape))
    assert found.dtype == source.header(TOLD).dtype
    return found


def refused(source):
    with pytest.raises(ConfigError) as caught:
        source.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_values_of_every_mode_are_read(tmp_path, dtype):
    source = write(tmp_path / "a.mrc", values(dtype, 100))
    assert source.header().dtype == dtype
    np.testing.assert_array_equal(read_all(source), values(dtype, 100))
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (2, 3, 4))), values(dtype, 100)[1:3, 2:5, 3:7])


def test_the_voxel_size_is_in_angstrom_and_x_first(tmp_path):
    header = write(tmp_path / "a.mrc", values(), voxel_size=(46, 92, 500)).header()
    assert (header.voxel_size, header.offset) == ((50, 9.2, 4.6), (0, 0, 0))


def test_a_volume_of_one_section_has_a_voxel_size_too(tmp_path):
    source = write(tmp_path / "a.mrc", values()[:1].copy(), voxel_size=(46, 92, 500))
    assert source.header().voxel_size == (50, 9.2, 4.6)
    assert source.model_dump(mode="json") == {"type": "mrc", "path": str(tmp_path / "a.mrc")}
    source = MrcFile(type="mrc", path=tmp_path / "a.mrc", bytes="signed")
    assert source.model_dump()["bytes"] == "signed"


@pytest.mark.parametrize("size", [(1, 1, 1), (0, 0, 0)])
def test_a_voxel_size_that_programs_write_without_knowing_it_is_not_believed(tmp_path, size):
    source = write(tmp_path / "a.mrc", values(), voxel_size=size)
    assert source.header().voxel_size is None
    assert source.header(TOLD).voxel_size == (50, 4.6, 4.6)


def test_axes_in_another_order_are_brought_to_z_y_x(tmp_path):
    source = write(tmp_path / "a.mrc", values(), voxel_size=(10, 20, 30))
    # Columns are z, rows are y, sections are x. The cell stays that of x, y and z.
    patch(tmp_path / "a.mrc", mapc=3, mapr=2, maps=1)
    header = source.header()
    assert header.shape == (7, 6, 5)
    assert header.voxel_size == pytest.approx((3 * 5 / 5, 2, 1))
    np.testing.assert_array_equal(read_all(source), values().transpose(2, 1, 0))


def test_big_endian_files_become_native(tmp_path):
    source = write(tmp_path / "a.mrc", values(">i2"))
    assert (tmp_path / "a.mrc").read_bytes()[:4] == b"\0\0\0\x07"
    assert source.header().dtype.isnative
    np.testing.assert_array_equal(read_all(source), values("int16"))


def test_extended_headers_are_not_values(tmp_path):
    source = write(tmp_path / "a.mrc", values())
    with mrcfile.open(tmp_path / "a.mrc", "r+") as file:
        file.set_extended_header(np.full(100, 7, np.uint8))
    assert (tmp_path / "a.mrc").stat().st_size == 1024 + 100 + values().nbytes
    np.testing.assert_array_equal(read_all(source), values())


# -- signs of bytes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "signed"),
    [({}, True), ({"nversion": 20140}, True), ({"imod_stamp": 1146047817, "imod_flags": 0}, False),
     ({"imod_stamp": 1146047817, "imod_flags": 2}, False),
     ({"imod_stamp": 1146047817, "imod_flags": 5, "nversion": 0}, True)],
)
def test_bytes_have_a_sign_where_the_standard_or_the_flag_of_imod_says_so(tmp_path, fields, signed):
    source = write(tmp_path / "a.mrc", values("uint8").view("int8"))
    patch(tmp_path / "a.mrc", **fields)
    assert source.header(TOLD).dtype == (np.int8 if signed else np.uint8)
    np.testing.assert_array_equal(read_all(source).view("uint8"), values("uint8"))


def test_bytes_of_an_old_file_need_the_config_to_say_it(tmp_path):
    source = write(tmp_path / "a.mrc", values("uint8").view("int8"))
    patch(tmp_path / "a.mrc", nversion=0)
    assert '"bytes": "unsigned"' in refused(source)
    for signed, dtype in [("signed", "int8"), ("unsigned", "uint8")]:
        source = MrcFile(type="mrc", path=tmp_path / "a.mrc", bytes=signed)
        np.testing.assert_array_equal(read_all(source), values("uint8").view(dtype))


def test_the_config_wins_over_the_standard(tmp_path):
    write(tmp_path / "a.mrc", values("uint8").view("int8"))
    source = MrcFile(type="mrc", path=tmp_path / "a.mrc", bytes="unsigned")
    np.testing.assert_array_equal(read_all(source), values("uint8"))


# -- what is refused -------------------------------------------------------------------


def test_an_origin_is_not_guessed(tmp_path):
    source = write(tmp_path / "a.mrc", values(), origin=(100, 0, -50))
    with pytest.raises(ConfigError, match=r"origin \[100.0, 0.0, -50.0\] Angstrom"):
        source.header()
    assert source.header(TOLD).offset == (1, 2, 3)
    source = write(tmp_path / "b.mrc", values(), nxstart=4)
    with pytest.raises(ConfigError, match=r"start \[4, 0, 0\] voxels"):
        source.header()


def test_complex_values_stacks_of_volumes_and_other_files_are_refused(tmp_path):
    assert "complex64" in refused(write(tmp_path / "a.mrc", values("complex64")))
    source = write(tmp_path / "b.mrc", values())
    patch(tmp_path / "b.mrc", ispg=401)
    assert "stack of volumes" in refused(source)
    patch(tmp_path / "b.mrc", ispg=1, mode=101)
    assert "is not read as an MRC file" in refused(source)
    (tmp_path / "c.mrc").write_text("text")
    assert "is not read as an MRC file" in refused(MrcFile(type="mrc", path=tmp_path / "c.mrc"))
    assert "is not read as an MRC file" in refused(MrcFile(type="mrc", path=tmp_path / "none.mrc"))


def test_a_truncated_file_is_found_before_the_start(tmp_path):
    source = write(tmp_path / "a.mrc", values())
    (tmp_path / "a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:-1])
    assert "its (5, 6, 7) voxels need 1444" in refused(source)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_read_and_their_damage_is_found(tmp_path, suffix, pack):
    write(tmp_path / "a.mrc", values())
    packed = tmp_path / f"a.mrc{suffix}"
    packed.write_bytes(pack((tmp_path / "a.mrc").read_bytes()))
    source = MrcFile(type="mrc", path=packed)
    assert source.header().voxel_size == (50, 9.2, 4.6)
    np.testing.assert_array_equal(read_all(source), values())
    packed.write_bytes(pack((tmp_path / "a.mrc").read_bytes()[:-2]))
    assert "voxels need" in refused(source)


def test_the_identity_is_that_of_the_file(tmp_path):
    source = write(tmp_path / "a.mrc", values())
    before = source.identity()
    assert source.identity() == before
    write(tmp_path / "a.mrc", values() + np.uint16(1))
    assert source.identity() != before

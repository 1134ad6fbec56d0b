"""NIfTI files: axes, affines, units, scaling."""

import nibabel
import numpy as np
import pytest

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.nifti import NiftiFile

SHAPE = (5, 6, 7)
TOLD = VolumeInput(path="a", voxel_size=(50, 4.6, 4.6), offset=(1, 2, 3))


def values(dtype="uint8", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def affine(x, y, z, origin=(0, 0, 0)):
    made = np.diag([x, y, z, 1.0])
    made[:3, 3] = origin
    return made


def write(path, array, matrix, unit="micron", kind=nibabel.Nifti1Image):
    """Store (z, y, x) values as nibabel does, x first."""
    image = kind(np.ascontiguousarray(array.transpose(2, 1, 0)), matrix, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return NiftiFile(type="nifti", path=path)


def read_all(source):
    source.check()
    with source.open() as read:
        found = read(Box((0, 0, 0), source.header(TOLD).shape))
    assert found.dtype == source.header(TOLD).dtype
    return found


def refused(call):
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", ">i2", "uint64"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_are_brought_from_x_y_z_to_z_y_x(tmp_path, name, dtype):
    source = write(tmp_path / name, values(dtype), affine(0.0046, 0.0092, 0.05))
    assert (source.header().shape, source.header().dtype) == (SHAPE, np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(read_all(source), values(dtype))
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (2, 3, 4))), values(dtype)[1:3, 2:5, 3:7])


def test_a_volume_of_one_section_is_read(tmp_path):
    source = write(tmp_path / "a.nii", values()[:1], affine(0.0046, 0.0092, 0.05))
    assert source.header().shape == (1, 6, 7)
    np.testing.assert_array_equal(read_all(source), values()[:1])


def test_nifti_2_is_read_too(tmp_path):
    source = write(tmp_path / "a.nii", values(), affine(1, 1, 1), kind=nibabel.Nifti2Image)
    np.testing.assert_array_equal(read_all(source), values())


@pytest.mark.parametrize(("unit", "nm"), [("micron", 1e3), ("mm", 1e6), ("meter", 1e9)])
def test_voxel_size_and_corner_of_the_first_voxel_follow_from_affine_and_unit(tmp_path, unit, nm):
    matrix = affine(4.6 / nm, 9.2 / nm, 50 / nm, origin=(46.0 / nm, -92.0 / nm, 1000.0 / nm))
    header = write(tmp_path / "a.nii", values(), matrix, unit).header()
    assert header.voxel_size == (50, 9.2, 4.6)
    # Positions of NIfTI are centres of voxels.
    assert header.offset == pytest.approx((1000 - 25, -92 - 4.6, 46 - 2.3))


def test_the_identity_of_itk_mirrors_x_and_y_of_the_affine_but_not_the_volume(tmp_path):
    matrix = affine(-0.004, -0.004, 0.05, origin=(-0.1, 0.2, 1.0))
    header = write(tmp_path / "a.nii", values(), matrix).header()
    assert header.voxel_size == (50, 4, 4)
    assert header.offset == pytest.approx((1000 - 25, -200 - 2, 100 - 2))
    np.testing.assert_array_equal(read_all(NiftiFile(type="nifti", path=tmp_path / "a.nii")), values())


def test_without_a_unit_or_an_affine_less_is_known(tmp_path):
    assert write(tmp_path / "a.nii", values(), affine(1, 1, 1), "unknown").header().voxel_size is None
    image = nibabel.Nifti1Image(values().transpose(2, 1, 0), None)
    image.header.set_zooms((4, 8, 40))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "b.nii")
    header = NiftiFile(type="nifti", path=tmp_path / "b.nii").header()
    assert (header.voxel_size, header.offset) == ((40_000, 8000, 4000), (0, 0, 0))


def test_rotated_and_mirrored_affines_are_refused_unless_the_config_places_the_values(tmp_path):
    angle = np.deg2rad(3)
    rotated = affine(1, 1, 1)
    rotated[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    swapped = np.eye(4)[[1, 0, 2, 3]]
    far = rotated + affine(0, 0, 0, origin=(1e7, 1e7, 1e7)) * (1 - np.eye(4))
    for matrix in (rotated, swapped, far, affine(-1, 1, 1), affine(1, 1, -1), affine(-1, -1, -1)):
        source = write(tmp_path / "a.nii", values(), matrix)
        assert "rotates or mirrors" in refused(source.header)
        assert source.header(TOLD)[2:4] == ((50, 4.6, 4.6), (1, 2, 3))
        np.testing.assert_array_equal(read_all(source), values())


def test_a_scaling_of_the_values_is_applied(tmp_path):
    image = nibabel.Nifti1Image(values("int16").transpose(2, 1, 0), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata().transpose(2, 1, 0)
    source = NiftiFile(type="nifti", path=tmp_path / "a.nii")
    assert source.header().dtype == np.float32
    np.testing.assert_allclose(read_all(source), expected)
    assert expected.max() > 100


def test_single_points_in_time_are_dropped_and_several_values_are_channels(tmp_path):
    for shape, full in [((7, 6, 5, 1), SHAPE), ((7, 6, 5, 1, 1), SHAPE), ((7, 6, 5, 3), (3, *SHAPE)),
                        ((7, 6, 5, 1, 3), (3, *SHAPE))]:
        stored = values(shape=shape)
        nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii")
        source = NiftiFile(type="nifti", path=tmp_path / "a.nii")
        assert source.header(TOLD).full_shape == full
        expected = stored.reshape(7, 6, 5, -1).T
        np.testing.assert_array_equal(read_all(source), expected if len(full) == 4 else expected[0])


def test_colours_other_formats_and_missing_files_are_refused(tmp_path):
    colours = np.zeros((7, 6, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    assert "Colours are not read" in refused(NiftiFile(type="nifti", path=tmp_path / "rgb.nii").check)
    assert "is not named .nii" in refused(NiftiFile(type="nifti", path=tmp_path / "a.mgh").check)
    assert "is not read as a NIfTI" in refused(NiftiFile(type="nifti", path=tmp_path / "none.nii").check)
    (tmp_path / "text.nii").write_text("text")
    assert "is not read as a NIfTI" in refused(NiftiFile(type="nifti", path=tmp_path / "text.nii").check)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_truncated_file_is_found_before_the_start(tmp_path, name):
    source = write(tmp_path / name, values(), np.eye(4))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-5])
    assert str(tmp_path / name) in refused(source.check)


def test_the_identity_is_that_of_the_file(tmp_path):
    source = write(tmp_path / "a.nii", values(), np.eye(4))
    before = source.identity()
    write(tmp_path / "a.nii", values() ^ 1, np.eye(4))
    assert source.identity() != before

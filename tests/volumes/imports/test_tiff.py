"""TIFF files of many pages: axes, places, kinds of pages, damage."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.tiff import TiffStack
from ome import write_ome_series

SHAPE = (5, 6, 7)


def values(dtype="uint8", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def tiff(path, **options):
    return TiffStack(type="tiff", path=path, **options)


def read_all(path, **options):
    source = tiff(path, **options)
    source.check()
    with source.open() as read:
        found = read(Box((0, 0, 0), source.header().shape))
    assert found.dtype == source.header().dtype
    assert found.shape == source.header().full_shape
    return found


def refused(path, **options):
    with pytest.raises(ConfigError) as caught:
        tiff(path, **options).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_pages(path, pages, **options):
    """One page after the other, with nothing that says they belong together."""
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, contiguous=False, **options)


# -- how a stack is stored -------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"compression": "lzw", "predictor": True}, {"tile": (16, 16)},
     {"bigtiff": True}, {"byteorder": ">"}, {"rowsperstrip": 2}, {"ome": True}],
    ids=str,
)
def test_a_stack_is_read_whatever_its_storage(tmp_path, dtype, options):
    options = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack", **options}
    if dtype == "float32":
        options.pop("predictor", None)
    tifffile.imwrite(tmp_path / "a.tif", values(dtype), **options)
    assert read_all(tmp_path / "a.tif").dtype == dtype
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), values(dtype))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_box_is_the_same_part_of_the_stack(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", values(), compression=compression, photometric="minisblack")
    with tiff(tmp_path / "a.tif").open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (3, 4, 2))), values()[1:4, 2:6, 3:5])


def test_pages_of_pillow_and_pages_without_description_are_a_stack(tmp_path):
    first, *others = [Image.fromarray(page) for page in values()]
    first.save(tmp_path / "pillow.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_all(tmp_path / "pillow.tif"), values())
    write_pages(tmp_path / "plain.tif", values(), metadata=None)
    np.testing.assert_array_equal(read_all(tmp_path / "plain.tif"), values())
    write_pages(tmp_path / "shaped.tif", values())
    np.testing.assert_array_equal(read_all(tmp_path / "shaped.tif"), values())


def test_a_single_page_is_a_volume_of_one_section(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values()[0])
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), values()[:1])


def test_bits_are_0_and_255_as_in_image_stacks(tmp_path):
    mask = values() > 100
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), mask * np.uint8(255))


# -- ImageJ ----------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX"])
def test_the_only_axis_of_an_imagej_stack_is_z_whatever_it_is_called(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.tif", values(), imagej=True, metadata={"axes": axes})
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), values())


def test_a_large_imagej_stack_has_one_page_only_and_is_read_whole(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(), imagej=True, truncate=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 1
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), values())


@pytest.mark.parametrize("axes", ["ZCYX", "TCYX"])
def test_channels_of_a_hyperstack_are_channels(tmp_path, axes):
    channels = values("uint16", (5, 2, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", channels, imagej=True, metadata={"axes": axes})
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), channels.swapaxes(0, 1))


def test_several_points_in_time_of_a_stack_are_refused(tmp_path):
    stack = values("uint8", (3, 5, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    assert "has the axes TZYX of (3, 5, 6, 7)" in refused(tmp_path / "a.tif")


def test_unnamed_axes_are_channels_and_sections(tmp_path):
    predicted = values("float32", (2, 5, 6, 7))
    tifffile.imwrite(tmp_path / "a.tif", predicted, photometric="minisblack")
    np.testing.assert_array_equal(read_all(tmp_path / "a.tif"), predicted)


@pytest.mark.parametrize(
    ("unit", "factor"), [("nm", 1), ("um", 1000), ("micron", 1000), ("\\u00B5m", 1000)]
)
def test_the_voxel_size_of_imagej_is_in_its_unit(tmp_path, unit, factor):
    options = {"imagej": True, "resolution": (factor / 4.6, factor / 9.2)}
    metadata = {"axes": "ZYX", "spacing": 50 / factor, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", values(), metadata=metadata, **options)
    header = tiff(tmp_path / "a.tif").header()
    assert header.voxel_size == pytest.approx((50, 9.2, 4.6), rel=1e-6)
    assert header.offset == (0, 0, 0)


@pytest.mark.parametrize("metadata", [{}, {"spacing": 2.0}, {"spacing": 2.0, "unit": "pixel"}])
def test_imagej_without_a_unit_of_length_says_no_voxel_size(tmp_path, metadata):
    tifffile.imwrite(tmp_path / "a.tif", values(), imagej=True, metadata={"axes": "ZYX", **metadata})
    assert tiff(tmp_path / "a.tif").header().voxel_size is None


# -- other places ----------------------------------------------------------------------


def test_ome_states_the_voxel_size_in_units_of_its_own(tmp_path):
    metadata = {
        "axes": "ZYX", "PhysicalSizeX": 4.6, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 9.2,
        "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 0.05,
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", values(), ome=True, metadata=metadata)
    assert tiff(tmp_path / "a.ome.tif").header().voxel_size == pytest.approx((50, 9.2, 4.6))
    tifffile.imwrite(tmp_path / "b.ome.tif", values(), ome=True, metadata={"axes": "ZYX"})
    assert tiff(tmp_path / "b.ome.tif").header().voxel_size is None


def test_an_exact_place_in_the_description_is_read_and_the_config_wins(tmp_path):
    metadata = {"voxel_size": [50, 4.6, 4.6], "offset": [-100, 46, 9.2]}
    tifffile.imwrite(tmp_path / "a.tif", values(), photometric="minisblack", metadata=metadata)
    source = tiff(tmp_path / "a.tif")
    assert source.header()[2:4] == ((50, 4.6, 4.6), (-100, 46, 9.2))
    told = VolumeInput(path="a", voxel_size=(40, 4, 4), offset=(1, 2, 3))
    assert source.header(told)[2:4] == ((40, 4, 4), (1, 2, 3))


# -- kinds of pages --------------------------------------------------------------------


def test_colours_are_refused_or_kept_as_channels(tmp_path):
    colours = values("uint8", (5, 6, 7, 3))
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    assert "are in colour (3 samples" in refused(tmp_path / "a.tif")
    found = read_all(tmp_path / "a.tif", colours="channels")
    np.testing.assert_array_equal(found, np.moveaxis(colours, -1, 0))
    tifffile.imwrite(tmp_path / "b.tif", colours[0], photometric="rgb", compression="zlib")
    found = read_all(tmp_path / "b.tif", colours="channels")
    np.testing.assert_array_equal(found, np.moveaxis(colours[:1], -1, 0))


def test_inverted_and_palette_pages_and_odd_bits_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(), photometric="miniswhite")
    assert "MINISWHITE" in refused(tmp_path / "a.tif")
    palette = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", values(), photometric="palette", colormap=palette)
    assert "PALETTE" in refused(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "d.tif", values("complex64"), photometric="minisblack")
    with pytest.raises(ConfigError, match="complex64"):
        tiff(tmp_path / "d.tif").header()


def test_pages_of_different_shape_are_refused(tmp_path):
    write_pages(tmp_path / "a.tif", [values()[0], values()[1, :4]])
    assert "images of (4, 7) uint8 and (6, 7) uint8" in refused(tmp_path / "a.tif")


def test_one_file_of_an_ome_series_of_several_is_refused_with_what_to_do(tmp_path):
    write_ome_series(tmp_path, values())
    assert f'{{"type": "images", "path": "{tmp_path}"}}' in refused(tmp_path / "z2.ome.tif")


# -- damage and identity ---------------------------------------------------------------


def test_a_missing_file_and_one_that_is_no_tiff_are_errors(tmp_path):
    assert "cannot be opened" in refused(tmp_path / "none.tif")
    (tmp_path / "text.tif").write_bytes(b"not a TIFF at all")
    assert "cannot be opened" in refused(tmp_path / "text.tif")


@pytest.mark.parametrize("options", [{}, {"imagej": True, "truncate": True}])
def test_a_file_without_its_end_is_found_before_the_start(tmp_path, options):
    metadata = None if options else {"axes": "ZYX"}
    stack = values("uint16", (5, 60, 70))
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata=metadata, **options)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-1000])
    message = refused(tmp_path / "a.tif")
    assert ("of 5 images, but 1 can be read" if options else "bytes") in message
    assert str(tmp_path / "a.tif") in message


def test_a_damaged_page_is_an_error_when_it_is_read(tmp_path):
    path = tmp_path / "a.tif"
    stack = values(shape=(5, 60, 70))
    tifffile.imwrite(path, stack, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as file:
        begin, size = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    tiff(path).check()
    with tiff(path).open() as read:
        np.testing.assert_array_equal(read(Box((0, 0, 0), (3, 60, 70))), stack[:3])
        with pytest.raises(VolumeError, match=r"Voxels \(3, 0, 0\) to \(4, 60, 70\) .* of .*a.tif"):
            read(Box((3, 0, 0), (1, 60, 70)))


def test_the_identity_is_what_the_file_holds(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(), photometric="minisblack")
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes())
    assert tiff(tmp_path / "a.tif").identity() == tiff(tmp_path / "b.tif").identity()
    changed = values()
    changed[2, 3, 4] ^= 1
    tifffile.imwrite(tmp_path / "b.tif", changed, photometric="minisblack")
    assert tiff(tmp_path / "a.tif").identity() != tiff(tmp_path / "b.tif").identity()

"""Image stacks: order and completeness of sections, kinds of images."""

import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.images import ImageStack, _gaps, section_files


def section(seed, shape=(6, 7), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def write_png(folder, **sections):
    for name, values in sections.items():
        Image.fromarray(values).save(folder / f"{name}.png")


def stack(path):
    return ImageStack(type="images", path=path)


def read_all(path):
    source = stack(path)
    source.check()
    with source.open() as read:
        return read(Box((0, 0, 0), source.header().shape))


def refused(path):
    with pytest.raises(ConfigError) as caught:
        stack(path).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- order -----------------------------------------------------------------------------


def test_sections_are_in_numeric_not_in_alphabetic_order(tmp_path):
    write_png(tmp_path, **{f"s{i}": section(i) for i in (8, 9, 10, 11)})
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in (8, 9, 10, 11)])


def test_the_section_number_is_the_last_number_that_varies(tmp_path):
    write_png(tmp_path, **{f"2016_z{i:04}_ch1_8bit": section(i) for i in (3, 4, 5)})
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in (3, 4, 5)])


def test_a_running_date_before_the_section_number_does_not_matter(tmp_path):
    write_png(tmp_path, day1_s10=section(0), day2_s11=section(1), day2_s12=section(2))
    np.testing.assert_array_equal(read_all(tmp_path), [section(i) for i in range(3)])


def test_a_single_image_is_one_section(tmp_path):
    write_png(tmp_path, overview=section(0))
    assert stack(tmp_path).header().shape == (1, 6, 7)
    np.testing.assert_array_equal(read_all(tmp_path / "overview.png"), [section(0)])


def test_a_pattern_chooses_one_series_of_a_folder(tmp_path):
    write_png(tmp_path, **{f"raw{i}": section(i) for i in range(3)})
    write_png(tmp_path, **{f"mask{i}": section(9) for i in range(3)})
    np.testing.assert_array_equal(read_all(tmp_path / "raw*.png"), [section(i) for i in range(3)])
    assert "mask" in (message := refused(tmp_path))
    assert "pattern" in message


def test_other_files_and_hidden_images_are_not_sections(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2))
    (tmp_path / "notes.txt").write_text("42")
    (tmp_path / "._s3.png").write_bytes(b"resource fork")
    assert [file.name for file in section_files(tmp_path)] == ["s1.png", "s2.png"]


def test_gaps_are_an_error_that_names_the_missing_sections(tmp_path):
    write_png(tmp_path, **{f"s{i:03}": section(i) for i in (1, 2, 4, 9)})
    assert "Sections are missing" in (message := refused(tmp_path))
    assert ": 3, 5-8 (" in message


def test_a_huge_gap_takes_no_time_and_many_gaps_no_page():
    assert _gaps([1, 10**15]) == f"2-{10**15 - 1}"
    assert _gaps(list(range(0, 2000, 2))).endswith("17, 19 and 989 more gaps")


@given(st.sets(st.integers(0, 60), min_size=1))
def test_the_named_gaps_are_exactly_the_missing_numbers(numbers):
    named = set()
    for gap in filter(None, _gaps(sorted(numbers), at_most=100).split(", ")):
        first, _, last = gap.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == set(range(min(numbers), max(numbers) + 1)) - numbers


def test_the_same_number_twice_is_an_error_that_names_both_files(tmp_path):
    write_png(tmp_path, s1=section(1), s01=section(1), s2=section(2))
    message = refused(tmp_path)
    assert "s1.png" in message
    assert "s01.png" in message


def test_tiles_of_sections_are_not_taken_for_sections(tmp_path):
    write_png(tmp_path, **{f"s{s}_tile{t}": section(s) for s in (1, 2) for t in (1, 2)})
    assert "same section number" in refused(tmp_path)


# -- kinds of images -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32])
def test_tiff_keeps_its_dtype(tmp_path, dtype):
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", section(i, dtype=dtype))
    assert stack(tmp_path).header().dtype == dtype
    values = read_all(tmp_path)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, [section(i, dtype=dtype) for i in range(2)])


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_compressed_tiff_is_read(tmp_path, compression):
    tifffile.imwrite(tmp_path / "0.tif", section(0), compression=compression)
    np.testing.assert_array_equal(read_all(tmp_path), [section(0)])


def test_big_endian_tiff_becomes_native(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", section(0, dtype=np.uint16), byteorder=">")
    values = read_all(tmp_path)
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, [section(0)])


def test_16_bit_png_keeps_its_dtype(tmp_path):
    write_png(tmp_path, s0=section(0, dtype=np.uint16) * 200)
    assert stack(tmp_path).header().dtype == np.uint16
    np.testing.assert_array_equal(read_all(tmp_path), [section(0, dtype=np.uint16) * 200])


def test_white_is_255_in_1_bit_and_in_8_bit_masks_of_one_series(tmp_path):
    mask = section(0) > 128
    Image.fromarray(mask).save(tmp_path / "0.png")  # 1 bit per pixel
    Image.fromarray(mask * np.uint8(255)).save(tmp_path / "1.png")
    values = read_all(tmp_path)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values[0], values[1])
    assert set(np.unique(values)) == {0, 255}


def test_1_bit_tiff_is_like_1_bit_png(tmp_path):
    mask = section(0) > 128
    tifffile.imwrite(tmp_path / "0.tif", mask, photometric="minisblack")
    np.testing.assert_array_equal(read_all(tmp_path), [mask * np.uint8(255)])


def write_few_bits(path, values, bits):
    """A grey PNG as other programs write it; Pillow cannot."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    shifts = 8 - bits * (1 + np.arange(8 // bits))
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % len(shifts))))
    packed = (padded.reshape(len(values), -1, len(shifts)) << shifts).sum(axis=2).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    height, width = values.shape
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_values_as_stored_not_spread_over_a_byte(tmp_path, bits):
    sections = [section(i) % 2**bits for i in range(2)]
    for i, values in enumerate(sections):
        write_few_bits(tmp_path / f"{i}.png", values, bits)
    assert stack(tmp_path).header().dtype == np.uint8
    np.testing.assert_array_equal(read_all(tmp_path), sections)
    assert stack(tmp_path).identity()["bits"] == bits


def test_few_bits_beside_bytes_are_refused_because_they_may_be_squeezed_bytes(tmp_path):
    write_few_bits(tmp_path / "0.png", section(0) % 16, 4)
    write_png(tmp_path, **{"1": section(1)})
    message = refused(tmp_path)
    assert "1.png is 6 x 7 uint8, but 0.png is 6 x 7 uint8 of 4 bits" in message
    assert "bits" not in stack(tmp_path / "1.png").identity()


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "LA"])
def test_colour_and_palette_images_are_refused(tmp_path, mode):
    Image.fromarray(section(0)).convert(mode).save(tmp_path / "0.png")
    said = refused(tmp_path)
    assert f"0.png is a PNG of mode {mode}, but" in said and "cannot be read" not in said


def test_colour_inverted_and_many_page_tiff_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "rgb0.tif", np.zeros((6, 7, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "inverted0.tif", section(0), photometric="miniswhite")
    tifffile.imwrite(tmp_path / "pages0.tif", np.stack([section(0)] * 2), metadata=None)
    assert "RGB" in refused(tmp_path / "rgb0.tif")
    assert "MINISWHITE" in refused(tmp_path / "inverted0.tif")
    assert "2 pages" in refused(tmp_path / "pages0.tif")


def test_a_stack_that_imagej_writes_as_one_page_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", np.stack([section(0)] * 4), imagej=True, truncate=True)
    assert "a TIFF of 4 pages" in refused(tmp_path)


def write_ome_series(folder, sections):
    """One file per section; the description in each names all of them, as microscopes write it."""
    height, width = sections[0].shape
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}'
        "</UUID></TiffData>" for z in range(len(sections))
    )
    description = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{len(sections)}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    )
    for z, values in enumerate(sections):
        tifffile.imwrite(
            folder / f"z{z}.ome.tif", values, description=description, metadata=None,
            photometric="minisblack",
        )


def test_a_file_of_an_ome_series_is_its_own_section_not_the_whole_series(tmp_path):
    sections = [section(i) for i in range(4)]
    write_ome_series(tmp_path, sections)
    assert tifffile.imread(tmp_path / "z2.ome.tif").shape == (4, 6, 7)  # as tifffile sees it
    assert stack(tmp_path).header().shape == (4, 6, 7)
    np.testing.assert_array_equal(read_all(tmp_path), sections)


def test_sections_of_different_shape_are_an_error_that_names_one(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2), s3=section(3, (6, 8)))
    message = refused(tmp_path)
    assert "s3.png is 6 x 8 uint8" in message
    assert "s1.png is 6 x 7 uint8" in message


def test_sections_of_different_dtype_are_an_error(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2, dtype=np.uint16))
    assert "s2.png is 6 x 7 uint16" in refused(tmp_path)


def test_sections_larger_than_pillow_likes_are_read_silently(tmp_path):
    Image.new("L", (20_000, 10_000)).save(tmp_path / "0.png", compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stack(tmp_path).header().shape == (1, 10_000, 20_000)


# -- damage ----------------------------------------------------------------------------


def test_a_missing_folder_and_an_empty_one_are_errors(tmp_path):
    assert f"no folder {tmp_path}/none" in refused(tmp_path / "none")
    assert "holds no PNG or TIFF" in refused(tmp_path)
    (tmp_path / "s1.txt").write_text("")
    assert "neither a PNG nor a TIFF" in refused(tmp_path / "s*.txt")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_that_is_no_image_is_an_error_with_its_path(tmp_path, suffix):
    (tmp_path / f"s1.{suffix}").write_bytes(b"not an image at all")
    assert f"{tmp_path}/s1.{suffix} cannot be read" in refused(tmp_path)


def test_a_truncated_image_is_an_error_with_its_path(tmp_path):
    write_png(tmp_path, s1=section(1, (64, 64)), s2=section(2, (64, 64)))
    data = (tmp_path / "s2.png").read_bytes()
    (tmp_path / "s2.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(VolumeError, match=f"{tmp_path}/s2.png cannot be read"):
        read_all(tmp_path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_tiff_is_an_error_with_its_path(tmp_path, compression):
    tifffile.imwrite(tmp_path / "s1.tif", section(1, (64, 64)), compression=compression)
    data = (tmp_path / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises((VolumeError, ConfigError), match=f"{tmp_path}/s1.tif"):
        read_all(tmp_path)


def test_an_image_that_changes_after_the_start_is_an_error(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2))
    with stack(tmp_path).open() as read:
        write_png(tmp_path, s2=section(2, (6, 8)))
        with pytest.raises(VolumeError, match="changed since the start"):
            read(Box((0, 0, 0), (2, 6, 7)))


# -- what the fingerprint sees ---------------------------------------------------------


def test_the_identity_changes_with_any_file(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2))
    before = stack(tmp_path).identity()
    assert stack(tmp_path).identity() == before
    write_png(tmp_path, s2=section(3))
    after = stack(tmp_path).identity()
    assert after["n_files"] == 2
    assert after != before


def test_a_box_is_read_from_its_sections_only(tmp_path):
    write_png(tmp_path, **{f"s{i}": section(i) for i in range(4)})
    (tmp_path / "s3.png").write_bytes(b"never opened")
    with stack(tmp_path).open() as read:
        values = read(Box((1, 2, 3), (2, 4, 4)))
    np.testing.assert_array_equal(values, [section(i)[2:6, 3:7] for i in (1, 2)])


def test_the_identity_of_a_stack_is_what_its_files_hold_not_when_or_where(tmp_path):
    (tmp_path / "a").mkdir()
    for n in range(3):
        Image.fromarray(np.full((9, 8), n, np.uint8)).save(tmp_path / f"a/s{n}.tif")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.utime(tmp_path / "b/s1.tif", (1, 1))
    stacks = {n: ImageStack(type="images", path=tmp_path / n) for n in "ab"}
    assert stacks["a"].identity() == stacks["b"].identity()
    changed = np.full((9, 8), 1, np.uint8)
    changed[4, 4] = 7
    Image.fromarray(changed).save(tmp_path / "b/s1.tif")
    assert (tmp_path / "a/s1.tif").stat().st_size == (tmp_path / "b/s1.tif").stat().st_size
    assert stacks["a"].identity() != stacks["b"].identity()

"""Image stacks: kinds of images, damage, identity."""

import json
import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.images import ImageStack
from ome import write_ome_series


def section(seed, shape=(6, 7), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


def write_png(folder, **sections):
    for name, values in sections.items():
        Image.fromarray(values).save(folder / f"{name}.png")


def stack(path, **options):
    return ImageStack(type="images", path=path, **options)


def read_all(path, **options):
    source = stack(path, **options)
    source.check()
    with source.open() as read:
        return read(Box((0, 0, 0), source.header().shape))


def refused(path):
    with pytest.raises(ConfigError) as caught:
        stack(path).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_jpeg_sections_are_read_as_pillow_decodes_them(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(24)).astype(np.uint8)
    for i in range(2):
        Image.fromarray(smooth + np.uint8(50 * i)).save(tmp_path / f"{i}.JPG", "JPEG", quality=95)
    values = read_all(tmp_path)
    assert values.dtype == np.uint8
    for i in range(2):
        with Image.open(tmp_path / f"{i}.JPG") as image:
            np.testing.assert_array_equal(values[i], np.asarray(image))
        assert abs(values[i].astype(int) - smooth - 50 * i).max() < 5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_channels_where_the_config_says_so(tmp_path, mode):
    colour = np.stack([section(i) for i in range(len(mode))], axis=-1)
    for i in range(3):
        Image.fromarray(colour + np.uint8(i), mode).save(tmp_path / f"{i}.png")
    source = stack(tmp_path, colours="channels")
    assert source.header().full_shape == (len(mode), 3, 6, 7)
    values = read_all(tmp_path, colours="channels")
    np.testing.assert_array_equal(values[:, 2], np.moveaxis(colour + np.uint8(2), -1, 0))


def colours_of(ids):
    return np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype("uint8")


def test_colours_are_ids_of_24_bits_where_the_config_says_so(tmp_path):
    """As VAST exports a segmentation: one PNG in colour per section."""
    ids = np.array([[[0, 1, 255, 256], [65535, 65536, 2**24 - 1, 70000]]] * 2, np.uint32)
    ids[1] += ids[1] < 5
    for i, plane in enumerate(ids):
        Image.fromarray(colours_of(plane)).save(tmp_path / f"seg_s{i:03d}.png")
    source = stack(tmp_path, colours="ids")
    assert source.header().full_shape == (2, 2, 4) and source.attributes() == {"labels": True}
    values = read_all(tmp_path, colours="ids")
    assert values.dtype == source.header().dtype == np.uint32
    np.testing.assert_array_equal(values, ids)


def test_transparent_pixels_have_no_id(tmp_path):
    rgba = np.full((3, 4, 4), 7, np.uint8)
    rgba[1, 2, 3] = 0
    Image.fromarray(rgba, "RGBA").save(tmp_path / "0.png")
    values = read_all(tmp_path, colours="ids")
    assert values[0, 1, 2] == 0 and (values == 7 * 65536 + 7 * 256 + 7).sum() == 11


@pytest.mark.parametrize(
    "pixels", [section(0), np.stack([section(0)] * 2, axis=-1), section(0, dtype="uint16")],
    ids=["grey", "grey and opacity", "16 bits"],
)
def test_ids_need_three_colours(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "0.png")
    with pytest.raises(ConfigError, match=r'with "colours": "ids" every pixel needs red, green'):
        stack(tmp_path, colours="ids").check()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours_of_tiff_are_channels_in_either_arrangement(tmp_path, planar):
    colour = np.stack([section(i, dtype=np.uint16) * 200 for i in range(3)])
    stored = colour if planar == "separate" else np.moveaxis(colour, 0, -1)
    tifffile.imwrite(tmp_path / "0.tif", stored, photometric="rgb", planarconfig=planar)
    values = read_all(tmp_path, colours="channels")
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values, colour[:, None])


def test_a_box_of_colours_is_the_same_part_of_every_channel(tmp_path):
    colour = np.stack([section(i) for i in range(3)], axis=-1)
    Image.fromarray(colour).save(tmp_path / "0.png")
    with stack(tmp_path, colours="channels").open() as read:
        np.testing.assert_array_equal(
            read(Box((0, 1, 2), (1, 3, 4))), np.moveaxis(colour[1:4, 2:6], -1, 0)[:, None]
        )


def test_grey_beside_colours_is_refused(tmp_path):
    Image.fromarray(section(0)).convert("RGB").save(tmp_path / "0.png")
    write_png(tmp_path, **{"1": section(1)})
    with pytest.raises(ConfigError, match=r"1.png is 6 x 7 uint8, but 0.png is .* of 3 channels"):
        stack(tmp_path, colours="channels").check()


def test_colours_of_16_bits_in_png_are_refused_because_half_of_them_would_be_lost(tmp_path):
    import imagecodecs

    colour = np.stack([section(i, dtype=np.uint16) * 200 for i in range(3)], axis=-1)
    (tmp_path / "0.png").write_bytes(imagecodecs.png_encode(colour))
    with pytest.raises(ConfigError, match="a PNG of mode RGB of 16 bits"):
        stack(tmp_path, colours="channels").check()


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
    assert "2 pages" in (said := refused(tmp_path / "pages0.tif"))
    assert f'{{"type": "tiff", "path": "{tmp_path}/pages0.tif"}}' in said


def test_a_stack_that_imagej_writes_as_one_page_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "0.tif", np.stack([section(0)] * 4), imagej=True, truncate=True)
    assert "a TIFF of 4 pages" in refused(tmp_path)


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


# -- the place in the world ------------------------------------------------------------


def test_a_file_beside_the_images_says_where_they_lie_and_the_config_wins(tmp_path):
    write_png(tmp_path, s1=section(1), s2=section(2))
    assert stack(tmp_path).header().voxel_size is None
    place = {"voxel_size": [50, 4.6, 4.6], "offset": [-100, 46, 9.2], "scale": 255, "channel": None}
    (tmp_path / "volume.json").write_text(json.dumps(place))
    assert stack(tmp_path).attributes() == {"scale": 255}
    for path in (tmp_path, tmp_path / "s*.png"):
        header = stack(path).header()
        assert (header.voxel_size, header.offset) == ((50, 4.6, 4.6), (-100, 46, 9.2))
    header = stack(tmp_path).header(VolumeInput(path="a", voxel_size=(40, 4, 4), offset=(1, 2, 3)))
    assert (header.voxel_size, header.offset) == ((40, 4, 4), (1, 2, 3))


# -- damage ----------------------------------------------------------------------------


def test_a_missing_folder_and_an_empty_one_are_errors(tmp_path):
    assert f"no folder {tmp_path}/none" in refused(tmp_path / "none")
    assert "holds no PNG, TIFF or JPEG" in refused(tmp_path)
    (tmp_path / "s1.txt").write_text("")
    assert "neither a PNG nor a TIFF nor a JPEG" in refused(tmp_path / "s*.txt")


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

"""Sections in tiles: put together as numpy does it, missing and odd ones refused."""

import json
import shutil

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.tiles.source import TileStack

SHAPE = (3, 25, 33)
TILE = (10, 12)  # 3 rows, the last of 5 pixels; 3 columns, the last of 9


def image(shape=SHAPE, dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def save(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".tif":
        tifffile.imwrite(file, pixels)
    else:
        Image.fromarray(pixels).save(file)


def tiled(folder, values, pattern="s{z:04d}/r{row}_c{column}.png", first=1, tile=TILE):
    """Cut sections into tiles; the JSON file that lists them."""
    patterns = []
    for z, section in enumerate(values):
        named = pattern.replace("{z:04d}", f"{z:04d}")
        for row in range(-(-section.shape[0] // tile[0])):
            for column in range(-(-section.shape[1] // tile[1])):
                y, x = row * tile[0], column * tile[1]
                file = folder / named.format(row=row + first, column=column + first)
                save(file, section[y:y + tile[0], x:x + tile[1]])
        patterns.append(named)
    listing = folder / "bfly.json"
    listing.write_text(json.dumps({"sections": patterns, "dimensions": {"depth": len(values)}}))
    return listing


def source(listing, **options):
    return TileStack(type="tiles", path=listing, **options)


def read_all(listing, **options):
    found = source(listing, **options)
    found.check()
    with found.open() as read:
        return read(Box((0, 0, 0), found.header().shape))


# -- what comes out -------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize(
    "pattern",
    ["s{z:04d}/r{row}_c{column}.png", "s{z:04d}_{row:02d}-{column:03d}.tif",
     "{column}/{row}/{z:04d}.png", "./a+b/{z:04d}.{row}.{column}.png"],
)
def test_tiles_are_put_together_by_rows_and_columns(tmp_path, pattern, first):
    values = image()
    np.testing.assert_array_equal(read_all(tiled(tmp_path, values, pattern, first)), values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_values_keep_their_type(tmp_path, dtype):
    values = image(dtype=dtype)
    listing = tiled(tmp_path, values, "{z:04d}_{row}_{column}.tif")
    found = read_all(listing)
    assert found.dtype == source(listing).header().dtype == dtype
    np.testing.assert_array_equal(found, values)


def test_patterns_may_be_absolute(tmp_path):
    values = image()
    listing = tiled(tmp_path / "tiles", values, f"{tmp_path}/tiles/{{z:04d}}_{{row}}_{{column}}.png")
    moved = tmp_path / "elsewhere.json"
    shutil.move(listing, moved)
    np.testing.assert_array_equal(read_all(moved), values)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return tiled(tmp_path_factory.mktemp("tiles"), image())


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_every_box_is_that_of_the_whole(listed, data):
    begin = [data.draw(st.integers(0, n - 1)) for n in SHAPE]
    end = [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, SHAPE, strict=True)]
    box = Box.between(begin, end)
    with source(listed).open() as read:
        np.testing.assert_array_equal(read(box), image()[box.slices])


def test_colours_become_channels_or_ids(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, SHAPE)
    rgb = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], axis=-1).astype("uint8")
    listing = tiled(tmp_path, rgb)
    found = read_all(listing, colours="ids")
    np.testing.assert_array_equal(found, ids)
    assert found.dtype == np.uint32
    assert source(listing, colours="ids").attributes() == {"labels": True}
    assert source(listing, colours="channels").header().channels == 3
    with source(listing, colours="channels").open() as read:
        box = Box((1, 4, 5), (2, 20, 9))
        np.testing.assert_array_equal(read(box), np.moveaxis(rgb, -1, 0)[(..., *box.slices)])
    with pytest.raises(ConfigError, match=r"mode RGB, but one section"):
        source(listing).check()


@pytest.mark.parametrize("block_shape", [None, (3, 32, 40), (1, 8, 8)])
def test_ingest_makes_a_volume_of_them(listed, tmp_path, block_shape):
    task = Ingest.from_dict({
        "kind": "ingest", "run": "tiles", "source": {"type": "tiles", "path": str(listed)},
        "output": str(tmp_path / "v.zarr/raw"), "voxel_size": [30, 4.6, 8], "offset": [90, 4.6, -8],
        "chunk_shape": (1, 8, 8), **({"block_shape": block_shape} if block_shape else {}),
    })
    task.check()
    assert task.grid().block_shape == (block_shape or (1, 16, 16))  # a tile, in whole chunks
    for spec in task.output_specs():
        spec.create(task.grid(), "f")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    made = Volume.open(task.output)
    np.testing.assert_array_equal(made.read(made.box), image())
    assert (made.voxel_size, made.offset) == ((30, 4.6, 8), (90, 4.6, -8))


# -- identity -------------------------------------------------------------------------------


def test_tiles_are_known_by_what_they_hold_not_by_where_they_lie(tmp_path):
    first = source(tiled(tmp_path / "a", image())).identity()
    assert first["n_files"] == 27
    assert source(tiled(tmp_path / "b", image())).identity() == first
    changed = image()
    changed[2, 24, 32] ^= 1
    assert source(tiled(tmp_path / "c", changed)).identity() != first


def test_a_tile_in_another_place_is_another_source(tmp_path):
    listing = tiled(tmp_path, image())
    before = source(listing).identity()
    a, b = (tmp_path / f"s0000/r1_c{column}.png" for column in (1, 2))
    a.rename(tmp_path / "x")
    b.rename(a)
    (tmp_path / "x").rename(b)
    assert source(listing).identity() != before


# -- missing tiles --------------------------------------------------------------------------


def without(folder, *names):
    listing = tiled(folder, image())
    for name in names:
        (folder / name).unlink()
    return listing


def test_missing_tiles_are_refused_by_their_names(tmp_path):
    names = [f"s0001/r{row}_c{column}.png" for row in (1, 2) for column in (1, 2, 3)]
    with pytest.raises(ConfigError) as caught:
        source(without(tmp_path, *names)).check()
    said = str(caught.value)
    assert said.startswith("6 of the 27 tiles of") and "and 1 more" in said and "\n" not in said
    assert f"row 1, column 1 of section 1 ({tmp_path}/s0001/r1_c1.png)" in said


def test_a_section_without_any_tile_and_one_without_the_last_row_are_missing_tiles(tmp_path):
    listing = without(tmp_path, *(f"s0000/r3_c{column}.png" for column in (1, 2, 3)))
    shutil.rmtree(tmp_path / "s0002")
    with pytest.raises(ConfigError, match=r"^12 of the 27 tiles"):
        source(listing).check()


def test_missing_tiles_become_zeros_if_the_config_says_so(tmp_path):
    listing = without(tmp_path, "s0001/r2_c3.png", "s0000/r1_c1.png")
    expected = image()
    expected[1, 10:20, 24:] = 0
    expected[0, :10, :12] = 0
    np.testing.assert_array_equal(read_all(listing, missing="zero"), expected)
    found = source(listing, missing="zero")
    assert found.said() == "2 missing tiles are filled with zeros"
    count = found.counter()
    assert count(Box((0, 0, 0), (3, 5, 5))) == {"sections_with_missing_tiles": 2}
    assert count(Box((0, 0, 5), (3, 5, 5))) == {"sections_with_missing_tiles": 0}
    assert count(Box((2, 0, 0), (1, 5, 5))) == {"sections_with_missing_tiles": 0}


# -- what is refused ------------------------------------------------------------------------


def test_tiles_of_another_size_or_type_are_refused(tmp_path):
    listing = tiled(tmp_path, image())
    save(tmp_path / "s0001/r2_c2.png", image((10, 11)))
    with pytest.raises(ConfigError, match=r"r2_c2.png is 10 x 11 uint8, but 10 x 12 .* at row 2"):
        source(listing).check()
    save(tmp_path / "s0001/r2_c2.png", image((10, 12), "uint16"))
    with pytest.raises(ConfigError, match=r"uint16, but 10 x 12 uint8"):
        source(listing).check()
    save(tmp_path / "s0001/r2_c2.png", image((10, 12)))
    save(tmp_path / "s0002/r3_c1.png", image((6, 12)))
    with pytest.raises(ConfigError, match=r"r3_c1.png is 6 x 12 uint8, but 5 x 12"):
        source(listing).check()


def test_a_damaged_tile_is_named(tmp_path):
    listing = tiled(tmp_path, image())
    file = tmp_path / "s0001/r2_c2.png"
    file.write_bytes(file.read_bytes()[:60])
    with source(listing).open() as read, pytest.raises(VolumeError, match=r"r2_c2.png cannot"):
        read(Box((1, 0, 0), (1, 25, 33)))
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"r2_c2.png cannot be read"):
        source(listing).check()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": []}', "has no key 'sections' with a list of patterns"),
        ('{"sections": []}', "has no key 'sections'"),
        ('{"sections": ["a{row}.png"]}', r"Section 0 of .*list.json is 'a\{row\}.png'"),
        ('{"sections": ["{row}{column}.png", "{row}{column}{z}.png"]}', "Section 1 of .* is needed"),
        ('{"sections": [null]}', "Section 0 of .* is None"),
        ('{"sections": ["{row{column}.png"]}', "is needed"),
        ('{"sections": ["no/{row}_{column}.png"]}', "none of the tiles that .*list.json lists"),
        ('["a"]', "holds a list"),
        ("{", "is not valid JSON"),
    ],
)
def test_a_file_that_lists_no_tiles_is_refused(tmp_path, text, words):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        source(tmp_path / "list.json").header()

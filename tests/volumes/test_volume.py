"""`Volume` on local disk: all formats, non-integer voxels, non-zero offsets."""

import functools
import http.server
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.errors import BlockAlignmentError, GeometryError, VolumeError
from em_blocks.geometry import Box, Frame, Roi
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.stores import store

FORMATS = ["zarr", "zarr3", "n5", "precomputed"]
SHAPE = (20, 33, 40)
CHUNK = (8, 8, 16)
# On the voxel grid (precomputed needs that), but nowhere an integer multiple in floats.
FRAME = Frame((50, 4.6, 4.6), (-150, 46, 92))


def random_values(shape=SHAPE, dtype="uint8", seed=0):
    if np.dtype(dtype).kind == "f":
        return np.random.default_rng(seed).normal(size=shape).astype(dtype)
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, dtype=dtype)


def make(path, format="zarr", *, channels=None, dtype="uint8", fill=True, **options):
    options = {"shape": SHAPE, "chunk_shape": CHUNK, "frame": FRAME, **options}
    volume = Volume.create(str(path), dtype=dtype, channels=channels, format=format, **options)
    if fill:
        lead = () if channels is None else (channels,)
        volume.write(volume.box, random_values((*lead, *volume.shape), dtype))
    return volume


def chunk_files(path):
    """Files below `path` that hold voxels, not metadata."""
    metadata = (".zarray", ".zattrs", ".zgroup", "zarr.json", "attributes.json", "info")
    files = (p for p in Path(path).rglob("*") if p.is_file())
    return sorted(p for p in files if p.name not in (*metadata, "em_blocks.json"))


def contents(path):
    """Every file below `path` with its bytes."""
    return {p.relative_to(path): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}


# -- what is written is read -----------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint64", "float32"])
def test_a_new_opening_sees_what_was_written(tmp_path, format, channels, dtype):
    path = tmp_path / "a.container" / "raw"
    make(path, format, channels=channels, dtype=dtype, attributes={"scale": 255.0, "note": "x"})
    volume = Volume.open(path)
    lead = () if channels is None else (channels,)
    values = random_values((*lead, *SHAPE), dtype)
    assert volume.format == format
    assert volume.channels == channels
    assert (volume.shape, volume.chunk_shape, volume.dtype) == (SHAPE, CHUNK, np.dtype(dtype))
    assert volume.frame == FRAME
    assert volume.scale == 255.0
    assert volume.attributes["note"] == "x"
    assert volume.nbytes == values.nbytes
    np.testing.assert_array_equal(volume.read(volume.box), values)


@pytest.mark.parametrize("format", FORMATS)
def test_a_region_is_the_same_in_voxels_and_in_nm(tmp_path, format):
    volume = make(tmp_path / "raw", format)
    box = Box((3, 5, 7), (10, 11, 12))
    expected = random_values()[box.slices]
    np.testing.assert_array_equal(volume.read(box), expected)
    np.testing.assert_array_equal(volume.read(FRAME.to_roi(box)), expected)
    roi = Roi((-150 + 3 * 50, 46 + 5 * 4.6, 92 + 7 * 4.6), (500, 50.6, 55.2))
    np.testing.assert_array_equal(volume.read(roi), expected)


def test_values_are_c_contiguous_in_every_format(tmp_path):
    for format in FORMATS:
        assert make(tmp_path / format, format).read(Box((1, 2, 3), (4, 5, 6))).flags.c_contiguous


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_never_written_reads_as_zero(tmp_path, format):
    volume = make(tmp_path / "raw", format, channels=2, fill=False)
    assert not volume.read(volume.box).any()
    assert chunk_files(tmp_path) == []


def test_the_world_extent_is_that_of_all_voxels(tmp_path):
    volume = make(tmp_path / "raw", fill=False)
    assert volume.roi.offset == (-150, 46, 92)
    assert volume.roi.shape == pytest.approx((1000, 151.8, 184))


def test_scaled_values_are_in_units_of_the_network(tmp_path):
    volume = make(tmp_path / "raw", attributes={"scale": 255.0})
    scaled = volume.read_scaled(volume.box)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, random_values() / 255, rtol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_attributes_can_be_replaced_one_by_one(tmp_path, format):
    volume = make(tmp_path / "raw", format, attributes={"scale": 255.0, "note": "x"})
    volume.set_attributes(scale=2.0, fingerprint="f")
    again = Volume.open(tmp_path / "raw")
    assert volume.scale == again.scale == 2.0
    assert (again.attributes["note"], again.attributes["fingerprint"]) == ("x", "f")
    assert again.frame == FRAME
    np.testing.assert_array_equal(again.read(again.box), random_values())


def test_signed_and_wide_types_keep_their_extremes(tmp_path):
    for dtype in ["int8", "int32", "int64", "uint64"]:
        info = np.iinfo(dtype)
        volume = make(tmp_path / dtype, dtype=dtype, shape=(1, 1, 2), fill=False)
        values = np.array([[[info.min, info.max]]], dtype)
        volume.write(volume.box, values)
        np.testing.assert_array_equal(volume.read(volume.box), values)


# -- beyond the volume -----------------------------------------------------------------


@pytest.fixture(scope="module", params=[None, 2], ids=["plain", "channels"])
def small(request, tmp_path_factory):
    """A volume of (3, 4, 5) voxels, and its values."""
    path = tmp_path_factory.mktemp("small") / "raw"
    volume = make(path, shape=(3, 4, 5), chunk_shape=(2, 2, 2), channels=request.param)
    return volume, volume.read(volume.box)


@settings(max_examples=60)
@given(
    offset=st.tuples(*[st.integers(-12, 12)] * 3),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    outside=st.sampled_from(["constant", "reflect"]),
)
def test_padding_is_that_of_numpy_over_the_whole_volume(small, offset, shape, outside):
    volume, values = small
    box = Box(offset, shape)
    width = 30
    lead = values.ndim - 3
    padded = np.pad(values, [(0, 0)] * lead + [(width, width)] * 3, mode=outside)
    expected = padded[(..., *box.shift((width,) * 3).slices)]
    np.testing.assert_array_equal(volume.read(box, outside=outside), expected)


@settings(max_examples=30)
@given(cut=st.integers(1, 9))
def test_reflection_does_not_depend_on_how_a_region_is_cut(small, cut):
    volume, _ = small
    whole = volume.read(Box((-4, -4, -4), (11, 12, 13)), outside="reflect")
    low = volume.read(Box((-4, -4, -4), (cut, 12, 13)), outside="reflect")
    high = volume.read(Box((cut - 4, -4, -4), (11 - cut, 12, 13)), outside="reflect")
    np.testing.assert_array_equal(np.concatenate([low, high], axis=-3), whole)


def test_a_single_section_reflects_onto_itself(tmp_path):
    volume = make(tmp_path / "raw", shape=(1, 4, 4))
    read = volume.read(Box((-2, 0, 0), (5, 4, 4)), outside="reflect")
    np.testing.assert_array_equal(read, np.broadcast_to(volume.read(volume.box), (5, 4, 4)))


def test_leaving_the_volume_is_an_error_unless_allowed(small):
    volume, _ = small
    with pytest.raises(GeometryError, match="leave the volume"):
        volume.read(Box((0, 0, 0), (3, 4, 6)))
    with pytest.raises(GeometryError, match="leave the volume"):
        volume.read(Box((-1, 0, 0), (1, 1, 1)))


def test_a_roi_off_the_grid_is_refused_with_the_nearest_one(tmp_path):
    volume = make(tmp_path / "raw", fill=False)
    with pytest.raises(GeometryError, match=r"use offset \(-100.0, 46.0, 92.0\)"):
        volume.read(Roi((-101, 46, 92), (50, 4.6, 4.6)))


def test_a_volume_far_from_the_origin_is_read_exactly(tmp_path):
    frame = Frame((50, 4.6, 4.6), (1e7, 1e7, -1e7))
    volume = make(tmp_path / "raw", frame=frame)
    roi = Roi((1e7 + 5 * 50, 1e7 + 17 * 4.6, -1e7 + 31 * 4.6), (50, 4.6, 4.6))
    assert volume.read(roi).item() == random_values()[5, 17, 31]


# -- blocks and chunks -----------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_aligned_blocks_are_written_independently(tmp_path, format):
    volume = make(tmp_path / "raw", format, fill=False)
    values = random_values()
    for z in (0, 16):
        for x in (0, 32):
            box = Box((z, 0, x), (16, 33, 32)).intersect(volume.box)
            volume.write(box, values[box.slices])
    np.testing.assert_array_equal(volume.read(volume.box), values)


@pytest.mark.parametrize(
    "box",
    [
        Box((4, 0, 0), (8, 8, 16)),  # starts within a chunk
        Box((0, 0, 0), (8, 8, 8)),  # ends within a chunk
        Box((0, 0, 0), (24, 8, 16)),  # leaves the volume, although aligned
        Box((-8, 0, 0), (8, 8, 16)),
    ],
)
def test_a_write_that_cuts_a_chunk_is_refused(tmp_path, box):
    volume = make(tmp_path / "raw")
    with pytest.raises(BlockAlignmentError, match="one write would be lost"):
        volume.write(box, np.zeros(box.shape, np.uint8))
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


def test_a_write_may_end_where_the_volume_ends(tmp_path):
    volume = make(tmp_path / "raw")
    box = Box((16, 32, 32), (4, 1, 8))
    volume.write(box, np.full(box.shape, 7, np.uint8))
    assert (volume.read(box) == 7).all()


def test_shards_are_the_unit_of_writing(tmp_path):
    volume = make(tmp_path / "raw", "zarr3", chunk_shape=(4, 4, 4), shard_shape=(8, 8, 16))
    assert volume.chunk_shape == (8, 8, 16)
    with pytest.raises(BlockAlignmentError):
        volume.write(Box((0, 0, 0), (4, 4, 4)), np.zeros((4, 4, 4), np.uint8))
    assert len(chunk_files(tmp_path)) == 3 * 5 * 3
    np.testing.assert_array_equal(Volume.open(tmp_path / "raw").read(volume.box), random_values())


def test_values_of_another_shape_or_type_are_refused(tmp_path):
    volume = make(tmp_path / "raw", channels=3)
    box = Box((0, 0, 0), (8, 8, 16))
    with pytest.raises(GeometryError, match="do not fill"):
        volume.write(box, np.zeros(box.shape, np.uint8))
    for dtype in ["int64", "float32", "bool"]:
        with pytest.raises(VolumeError, match=f"dtype {dtype}"):
            volume.write(box, np.zeros((3, *box.shape), dtype))


def test_a_volume_opened_for_reading_is_not_written(tmp_path):
    make(tmp_path / "raw")
    volume = Volume.open(tmp_path / "raw")
    with pytest.raises(VolumeError, match="cannot be written"):
        volume.write(volume.box, np.zeros(SHAPE, np.uint8))


WRITER = """
import sys, numpy as np
from em_blocks.geometry import Box
from em_blocks.volumes import Volume
path, parity = sys.argv[1], int(sys.argv[2])
volume = Volume.open(path, mode="r+")
rng = np.random.default_rng(0)
for i in range(32):
    values = rng.integers(1, 255, (8, 16, 16), dtype=np.uint8)
    if i % 2 == parity:
        volume.write(Box((8 * i, 0, 0), (8, 16, 16)), values)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_two_processes_writing_neighbouring_blocks_lose_nothing(tmp_path, format):
    shard = (8, 16, 16) if format == "zarr3" else None
    options = {"shape": (256, 16, 16), "chunk_shape": (4, 8, 8), "shard_shape": shard}
    volume = make(tmp_path / "raw", format, fill=False, **options)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "raw", str(parity)])
        for parity in (0, 1)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    rng = np.random.default_rng(0)
    expected = [rng.integers(1, 255, (8, 16, 16), dtype=np.uint8) for _ in range(32)]
    np.testing.assert_array_equal(volume.read(volume.box), np.concatenate(expected))


ENDLESS_WRITER = """
import sys, numpy as np
from em_blocks.volumes import Volume
volume = Volume.open(sys.argv[1], mode="r+")
values = np.random.default_rng(0).integers(0, 255, volume.shape, dtype=np.uint8)
print("up", flush=True)
while True:
    volume.write(volume.box, values)
"""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("delay_s", [0.02, 0.05])
def test_a_killed_write_damages_no_chunk_and_leaves_nothing_after_the_next(
    tmp_path, format, delay_s
):
    options = {"shape": (64, 64, 64), "chunk_shape": (16, 16, 16)}
    volume = make(tmp_path / "killed", format, fill=False, **options)
    command = [sys.executable, "-c", ENDLESS_WRITER, tmp_path / "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        time.sleep(delay_s)
        writer.kill()
    values = random_values((64, 64, 64))
    stored = volume.read(volume.box)
    assert ((stored == values) | (stored == 0)).all()  # chunks are there, or not yet

    volume.write(volume.box, values)
    make(tmp_path / "undisturbed", format, **options)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


# -- opening and creating --------------------------------------------------------------


def test_opening_loads_no_voxels(tmp_path):
    volume = make(tmp_path / "raw", shape=(10**6,) * 3, chunk_shape=(64,) * 3, fill=False)
    box = Box((64 * 10_000,) * 3, (64,) * 3)
    volume.write(box, random_values((64,) * 3))
    for file in chunk_files(tmp_path):
        file.write_bytes(b"not a chunk")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    opened = Volume.open(tmp_path / "raw")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
    assert opened.box.size == 10**18
    with pytest.raises(VolumeError):
        opened.read(box)


def test_a_missing_volume_is_an_error_with_its_path(tmp_path):
    with pytest.raises(VolumeError, match=f"no volume at {tmp_path}/none"):
        Volume.open(tmp_path / "none")


def test_a_container_is_an_error_that_names_its_arrays(tmp_path):
    make(tmp_path / "x.zarr" / "raw", fill=False)
    make(tmp_path / "x.zarr" / "labels", fill=False)
    with pytest.raises(VolumeError, match="name one of its arrays: labels, raw"):
        Volume.open(tmp_path / "x.zarr")


@pytest.mark.parametrize("format", FORMATS)
def test_an_existing_array_is_not_overwritten(tmp_path, format):
    make(tmp_path / "raw", format)
    with pytest.raises(VolumeError, match="exists already"):
        make(tmp_path / "raw", "zarr", fill=False)
    volume = Volume.open(tmp_path / "raw")
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


@pytest.mark.parametrize("format", ["zarr", "zarr3", "n5"])
def test_a_container_is_not_turned_into_an_array(tmp_path, format):
    make(tmp_path / "x.zarr" / "raw", format)
    with pytest.raises(VolumeError, match="exists already"):
        make(tmp_path / "x.zarr", format, fill=False)
    assert detect(str(tmp_path / "x.zarr")) is None


def test_an_array_cannot_be_made_within_another(tmp_path):
    make(tmp_path / "x.zarr" / "raw")
    with pytest.raises(VolumeError, match="is itself an array"):
        make(tmp_path / "x.zarr" / "raw" / "more", fill=False)


def test_groups_are_made_down_from_the_container_and_nowhere_else(tmp_path):
    make(tmp_path / "x.zarr" / "volumes" / "raw", fill=False)
    make(tmp_path / "alone.zarr", fill=False)
    groups = sorted(p.parent.relative_to(tmp_path) for p in tmp_path.rglob(".zgroup"))
    assert groups == [Path("x.zarr"), Path("x.zarr/volumes")]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n_writes", [0, 1, 2])
def test_an_array_exists_whole_or_not_at_all(tmp_path, format, n_writes, monkeypatch):
    """Killed while it is made, after so many files, it is not there and can be made again."""
    write_json, written = store.write_json, []

    def killed(path, name, values):
        if len(written) == n_writes:
            raise KeyboardInterrupt
        written.append(name)
        write_json(path, name, values)

    monkeypatch.setattr(store, "write_json", killed)
    path = tmp_path / "x.zarr" / "volumes" / "raw"
    try:
        make(path, format, fill=False)
    except KeyboardInterrupt:
        assert detect(str(path)) is None
        monkeypatch.undo()
        make(path, format, fill=False)
    assert Volume.open(path).frame == FRAME


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dtype": "float64", "format": "precomputed"}, "float64"),
        ({"format": "zarr3", "shard_shape": (12, 8, 16)}, "size of 12"),
        ({"format": "precomputed", "frame": Frame((50, 4, 4), (0, 1, 0))}, "whole voxels"),
    ],
)
def test_what_a_format_cannot_hold_is_an_error(tmp_path, options, reason):
    with pytest.raises(VolumeError, match=reason) as caught:
        make(tmp_path / "raw", fill=False, **options)
    assert "tensorstore_spec" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(VolumeError, match=str(tmp_path / "file")):
        make(tmp_path / "file" / "raw", fill=False)


@pytest.mark.parametrize("path", ["ftp://host/raw.zarr", "s4://bucket/raw"])
def test_an_unknown_scheme_is_an_error(path):
    with pytest.raises(VolumeError, match="unknown scheme"):
        Volume.open(path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("format", ["zarr", "precomputed"])
def test_a_volume_behind_a_web_server_is_read(tmp_path, format):
    make(tmp_path / "x.zarr" / "raw", format)
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        volume = Volume.open(f"http://127.0.0.1:{server.server_port}/x.zarr/raw")
        values = volume.read(volume.box)
        server.shutdown()
    assert volume.frame == FRAME
    np.testing.assert_array_equal(values, random_values())


def test_odd_characters_in_folder_names_are_kept(tmp_path):
    path = tmp_path / "a #1?b %20" / "raw"
    make(path)
    assert (path / ".zarray").exists()
    assert Volume.open(path).shape == SHAPE


# -- damage ----------------------------------------------------------------------------


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "overwritten": lambda data: bytes(len(data)),
}


# Chunks of the precomputed format are bare voxels: any bytes of the right number are valid.
DAMAGED = [(f, d) for f in [*FORMATS, "sharded"] for d in DAMAGE]
DAMAGED.remove(("precomputed", "overwritten"))


@pytest.mark.parametrize(("format", "damage"), DAMAGED)
def test_a_damaged_chunk_is_an_error_with_the_path_of_its_file(tmp_path, format, damage):
    shard = (8, 16, 16) if format == "sharded" else None
    format = "zarr3" if format == "sharded" else format
    make(tmp_path / "raw", format, dtype="uint64", shard_shape=shard)
    victim = chunk_files(tmp_path)[-1]
    victim.write_bytes(DAMAGE[damage](victim.read_bytes()))
    volume = Volume.open(tmp_path / "raw")
    with pytest.raises(VolumeError) as caught:
        volume.read(volume.box)
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shard", [None, (8, 16, 16)])
def test_zarr3_notices_a_single_flipped_bit(tmp_path, shard):
    make(tmp_path / "raw", "zarr3", shard_shape=shard)
    victim = chunk_files(tmp_path)[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    volume = Volume.open(tmp_path / "raw")
    with pytest.raises(VolumeError, match=r"[Dd]igest"):
        volume.read(volume.box)


def test_the_other_chunks_of_a_damaged_volume_are_read(tmp_path):
    make(tmp_path / "raw")
    (tmp_path / "raw" / "0" / "0" / "0").write_bytes(b"")
    volume = Volume.open(tmp_path / "raw")
    rest = Box((8, 0, 0), (12, 33, 40))
    np.testing.assert_array_equal(volume.read(rest), random_values()[rest.slices])


@pytest.mark.parametrize("text", ['{"zarr_format": 2, "sha', "[1, 2]", "\x00"])
def test_damaged_metadata_is_an_error_with_the_path(tmp_path, text):
    make(tmp_path / "raw", fill=False)
    (tmp_path / "raw" / ".zarray").write_text(text)
    with pytest.raises(VolumeError, match=str(tmp_path / "raw" / ".zarray")):
        Volume.open(tmp_path / "raw")


def test_a_compressor_that_is_not_supported_is_an_error(tmp_path):
    make(tmp_path / "raw", fill=False)
    metadata = json.loads((tmp_path / "raw" / ".zarray").read_text())
    metadata["compressor"] = {"id": "lzma"}
    (tmp_path / "raw" / ".zarray").write_text(json.dumps(metadata))
    with pytest.raises(VolumeError, match='"lzma" is not registered'):
        Volume.open(tmp_path / "raw")


def test_a_folder_is_deleted_with_all_it_holds(tmp_path):
    make(tmp_path / "x.zarr" / "raw")
    make(tmp_path / "x.zarr" / "labels")
    store.delete_folder(str(tmp_path / "x.zarr" / "raw"))
    assert detect(str(tmp_path / "x.zarr" / "raw")) is None
    assert detect(str(tmp_path / "x.zarr" / "labels")).name == "zarr"
    assert not (tmp_path / "x.zarr" / "raw" / "0").exists()

"""Precomputed volumes of other programs: scales by any key, chunks that CloudVolume compressed."""

import bz2
import functools
import gzip
import http.server
import json
import lzma
import threading

import imagecodecs
import numpy as np
import pytest

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect

FRAME = Frame((40, 4.6, 4), (400, 46, -8))
SHAPE = (12, 18, 21)
CHUNK = (8, 8, 8)
ENCODERS = {
    ".gz": gzip.compress, ".br": imagecodecs.brotli_encode, ".zstd": imagecodecs.zstd_encode,
    ".bz2": bz2.compress, ".xz": lzma.compress,
}


def values_of(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)


def foreign(folder, key="4_4_40", dtype="uint8", **attributes):
    """A volume as others write it: one scale of any key, without attributes of ours."""
    made = Volume.create(
        str(folder / "s0"), shape=SHAPE, dtype=dtype, frame=FRAME, chunk_shape=CHUNK,
        format="precomputed", attributes=attributes,
    )
    made.write(made.box, values_of(dtype))
    (folder / "s0/em_blocks.json").unlink()
    info = json.loads((folder / "info").read_text())
    info["scales"][0]["key"] = key
    (folder / "info").write_text(json.dumps(info))
    (folder / key).parent.mkdir(exist_ok=True)
    (folder / "s0").rename(folder / key)
    return folder / key


def chunks(folder):
    return sorted(path for path in folder.iterdir() if path.name[0].isdigit() or path.name[0] == "-")


def compress(paths, suffix):
    for path in paths:
        path.with_name(path.name + suffix).write_bytes(ENCODERS[suffix](path.read_bytes()))
        path.unlink()


def whole(path):
    volume = Volume.open(str(path))
    assert (volume.frame.voxel_size, volume.frame.offset) == (FRAME.voxel_size, FRAME.offset)
    return volume.read(volume.box)


@pytest.mark.parametrize("key", ["4_4_40", "8.0x8.0x8.0", "mip0", "em/4_4_40", "s0"])
def test_a_scale_is_named_by_its_key_whatever_that_is(tmp_path, key):
    path = foreign(tmp_path / "em", key)
    assert detect(str(path)).name == "precomputed"
    np.testing.assert_array_equal(whole(path), values_of())
    np.testing.assert_array_equal(whole(tmp_path / "em"), values_of())
    with pytest.raises(VolumeError, match="There is no volume at"):
        Volume.open(f"{path}_not")


def test_nothing_is_made_in_a_scale_of_others(tmp_path):
    path = foreign(tmp_path / "em")
    for format in ("zarr", "precomputed"):
        with pytest.raises(VolumeError, match="exists already"):
            Volume.create(str(path), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=CHUNK,
                          format=format)


@pytest.mark.parametrize("suffix", ENCODERS)
def test_chunks_that_cloudvolume_compressed_are_read(tmp_path, suffix):
    path = foreign(tmp_path / "em")
    compress(chunks(path), suffix)
    np.testing.assert_array_equal(whole(path), values_of())
    box = Box((3, 7, 2), (7, 4, 15))
    np.testing.assert_array_equal(Volume.open(str(path)).read(box), values_of()[box.slices])
    assert Volume.open(str(path)).chunk_shape == CHUNK


def test_plain_and_compressed_chunks_may_lie_side_by_side_in_any_encoding(tmp_path):
    path = foreign(tmp_path / "em", dtype="uint64", labels=True)
    assert json.loads((tmp_path / "em/info").read_text())["scales"][0]["encoding"] != "raw"
    compress(chunks(path)[::3], ".gz")
    compress(chunks(path)[1::3], ".br")
    np.testing.assert_array_equal(whole(path), values_of("uint64"))


def test_a_chunk_that_is_missing_is_0_and_one_that_is_damaged_an_error(tmp_path):
    path = foreign(tmp_path / "em")
    compress(chunks(path), ".gz")
    first, second, *_ = chunks(path)
    first.unlink()
    there = whole(path) == values_of()
    assert 0 < (~there).sum() <= np.prod(CHUNK)
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(VolumeError, match=f"The chunk {second} cannot be read"):
        whole(path)


def test_a_chunk_in_two_spellings_must_be_one(tmp_path):
    path = foreign(tmp_path / "em")
    chunk = chunks(path)[0]
    twin = chunk.with_name(chunk.name + ".gz")
    twin.write_bytes(gzip.compress(chunk.read_bytes()))
    np.testing.assert_array_equal(whole(path), values_of())
    twin.write_bytes(gzip.compress(bytes(len(chunk.read_bytes()))))
    with pytest.raises(VolumeError, match=f"{chunk.name} and {twin.name}, which hold different voxels"):
        whole(path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_copy_of_such_a_folder_elsewhere_is_read_too(tmp_path):
    path = foreign(tmp_path / "em")
    compress(chunks(path), ".gz")
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            values = whole(f"http://127.0.0.1:{server.server_port}/em/4_4_40")
        finally:
            server.shutdown()
    np.testing.assert_array_equal(values, values_of())


def test_volumes_with_compressed_chunks_are_only_read(tmp_path):
    path = foreign(tmp_path / "em")
    compress(chunks(path), ".gz")
    volume = Volume.open(str(path), mode="r+")
    with pytest.raises(VolumeError, match="cannot be written"):
        volume.write(volume.box, values_of())


def test_an_info_that_makes_no_sense_is_an_error(tmp_path):
    foreign(tmp_path / "em")
    info = json.loads((tmp_path / "em/info").read_text())
    for scales in (3, [], [{}], [3]):
        (tmp_path / "em/info").write_text(json.dumps({**info, "scales": scales}))
        with pytest.raises(VolumeError):
            Volume.open(str(tmp_path / "em"))

"""Pickled arrays in lzma files as sources."""

import lzma
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box
from em_blocks.volumes.imports import xz_array
from em_blocks.volumes.imports.xz_array import XzArray

SHAPE = (30, 40, 70)


def labels(dtype="uint16"):
    return np.random.default_rng(0).integers(0, 2**15, SHAPE).astype(dtype)


def write(path, value, **options):
    with lzma.open(path, "wb", **options) as file:
        pickle.dump(value, file)
    return XzArray(type="xz_array", path=path)


def refused(source):
    with pytest.raises(ConfigError) as caught:
        source.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["uint16", "int64", ">u4", "float32", "bool"])
def test_values_and_boxes_of_an_array_are_read(tmp_path, dtype):
    source = write(tmp_path / "result.xz", labels(dtype))
    source.check()
    header = source.header(VolumeInput(path="a", voxel_size=(40, 4, 4), offset=(1, 2, 3)))
    assert (header.shape, header.voxel_size, header.offset) == (SHAPE, (40, 4, 4), (1, 2, 3))
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((0, 0, 0), SHAPE)), labels(dtype))
        found = read(Box((1, 2, 3), (4, 5, 6)))
    np.testing.assert_array_equal(found, labels(dtype)[1:5, 2:7, 3:9])
    native = np.uint8 if dtype == "bool" else np.dtype(dtype).newbyteorder("=")
    assert found.dtype == header.dtype == native


def test_the_older_lzma_container_and_axes_of_the_config_are_read(tmp_path):
    source = write(tmp_path / "a.lzma", labels().T, format=lzma.FORMAT_ALONE)
    source = source.model_copy(update={"axes": ("x", "y", "z")})
    assert source.header().shape == SHAPE
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((0, 0, 0), SHAPE)), labels())


def test_no_temporary_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with write(tmp_path / "a.xz", labels()).open() as read:
        read(Box((0, 0, 0), SHAPE))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_memory_does_not_depend_on_the_array(tmp_path):
    """Of 200 MB more of values, none is held."""
    code = (
        "import re, sys; from em_blocks.geometry import Box; "
        "from em_blocks.volumes.imports.xz_array import XzArray; "
        "source = XzArray(type='xz_array', path=sys.argv[1]); source.check()\n"
        "with source.open() as read: assert read(Box((5, 5, 5), (10, 90, 90))).sum() == 0\n"
        # The peak of this process alone: that of getrusage begins with its parent's.
        "print(re.search('VmHWM: *([0-9]+)', open('/proc/self/status').read().replace('\\t', ' '))[1])"
    )
    peaks = []
    for depth in (10, 210):
        write(tmp_path / f"{depth}.xz", np.zeros((depth + 5, 1000, 1000), np.uint8), preset=0)
        command = [sys.executable, "-c", code, tmp_path / f"{depth}.xz"]
        ended = subprocess.run(command, check=True, capture_output=True)
        peaks.append(int(ended.stdout) // 1024)
    assert peaks[1] < peaks[0] + 40, peaks


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_malicious_file_is_refused_and_nothing_is_executed(tmp_path):
    source = write(tmp_path / "a.xz", Attack(tmp_path / "trace"))
    message = refused(source)
    assert f"{tmp_path}/a.xz is refused: it names posix.system" in message
    assert "numpy.save" in message
    for call in (source.header, source.open().__enter__):
        with pytest.raises(ConfigError, match="is refused"):
            call()
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": labels()}, np.array(["a", None], object), None])
def test_what_is_no_array_of_numbers_is_refused(tmp_path, value):
    assert "is refused" in refused(write(tmp_path / "a.xz", value))


def test_an_array_that_is_no_volume_is_refused(tmp_path):
    assert "(30, 40)" in refused(write(tmp_path / "a.xz", labels()[..., 0]))


def test_missing_damaged_and_uncompressed_files_are_errors_with_their_path(tmp_path):
    assert f"no file {tmp_path}/none.xz" in refused(XzArray(type="xz_array", path=tmp_path / "none.xz"))
    source = write(tmp_path / "a.xz", labels())
    data = (tmp_path / "a.xz").read_bytes()
    for bad in (data[:-3000], data[:5000] + bytes(100) + data[5100:], pickle.dumps(labels())):
        (tmp_path / "a.xz").write_bytes(bad)
        assert f"{tmp_path}/a.xz" in refused(source)


def test_an_array_that_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    source = write(tmp_path / "bomb.xz", np.zeros((20, 1000, 1000), np.uint8))
    assert (tmp_path / "bomb.xz").stat().st_size < 100_000
    usage = type("Usage", (), {"free": 10**7})
    monkeypatch.setattr(xz_array.shutil, "disk_usage", lambda folder: usage)
    assert "there is room for 10,000,000" in refused(source)


def test_the_header_is_read_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    calls, read = [], xz_array._read
    monkeypatch.setattr(xz_array, "_read", lambda *args: calls.append(1) or read(*args))
    source = write(tmp_path / "a.xz", labels())
    source.header(), source.header(), source.check()
    assert len(calls) == 1
    write(tmp_path / "a.xz", labels()[:7])
    assert source.header().shape == (7, 40, 70)


def test_the_identity_is_that_of_the_file(tmp_path):
    first, copy = write(tmp_path / "a.xz", labels()), write(tmp_path / "b.xz", labels())
    other = write(tmp_path / "c.xz", labels() ^ 1)
    assert first.identity() == copy.identity() != other.identity()

"""What we write, read by the field's own programs.

They need zarr 3, which gunpowder cannot be imported with, and so live in an environment of their own,
which `make test-validators` makes.
"""

import json
import os
import subprocess

import numpy as np
import pytest
import tensorstore as ts

from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.multiscale import level_path, write_multiscales

FORMATS = ["zarr", "zarr3", "n5", "precomputed"]
NGFF = """
import sys, zarr
from ome_zarr_models import v04, v05
image = {"zarr": v04, "zarr3": v05}[sys.argv[2]].Image.from_zarr(zarr.open_group(sys.argv[1], mode="r"))
(multiscale,) = (image.ome_attributes if sys.argv[2] == "zarr3" else image.attributes).multiscales
assert [d.path for d in multiscale.datasets] == ["s0", "s1"]
assert {axis.unit for axis in multiscale.axes if axis.type == "space"} == {"nanometer"}
"""
XARRAY = """
import sys, numpy, xarray
group = xarray.open_zarr(
    sys.argv[1], consolidated=False, drop_variables=["s1"], mask_and_scale=False)
assert "".join(group.s0.dims) == sys.argv[3], group.s0.dims
numpy.testing.assert_array_equal(group.s0.values, numpy.load(sys.argv[2]))
"""
CLOUDVOLUME = """
import sys, numpy, cloudvolume
for mip in range(2):
    volume = cloudvolume.CloudVolume("precomputed://file://" + sys.argv[1], mip=mip, fill_missing=False)
    assert list(volume.resolution) == [4 * 2**mip, 4.6 * 2**mip, 40], volume.resolution
    values = numpy.asarray(volume[:]).transpose(3, 2, 1, 0)
    values = values if "c" in sys.argv[3] else values[0]
    numpy.testing.assert_array_equal(values, numpy.load(sys.argv[2].replace("0.npy", f"{mip}.npy")))
"""


@pytest.fixture
def validate():
    """Run a script of the other environment; what it prints is the reason of a failure."""
    python = os.environ.get("EM_BLOCKS_VALIDATORS")
    if not python:
        pytest.skip("EM_BLOCKS_VALIDATORS names no Python with ome-zarr-models, xarray, cloud-volume")

    def run(script, *arguments):
        done = subprocess.run(
            [python, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr

    return run


def pyramid(tmp_path, format, channels, dtype="uint16"):
    """Two levels, and their values as files of numpy beside them."""
    tmp_path.mkdir(exist_ok=True)
    group, levels = f"{tmp_path}/em/raw", []
    for level in range(2):
        factor = 2**level
        volume = Volume.create(
            level_path(group, level), shape=(8, 16 // factor, 24 // factor), dtype=dtype,
            channels=channels, frame=Frame((40, 4.6 * factor, 4 * factor), (400, 46, -8)),
            chunk_shape=(8, 8, 8), format=format,
        )
        shape = volume.shape if channels is None else (channels, *volume.shape)
        values = np.random.default_rng(level).integers(0, 99, shape).astype(dtype)
        volume.write(volume.box, values)
        np.save(f"{tmp_path}/{level}.npy", values)
        levels.append(volume)
    if format.startswith("zarr"):
        write_multiscales(group, format, levels)
    return group


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("format", ["zarr", "zarr3"])
def test_ome_zarr_models_and_xarray_take_our_pyramids(tmp_path, validate, format, channels):
    group = pyramid(tmp_path, format, channels)
    validate(NGFF, group, format)
    validate(XARRAY, group, tmp_path / "0.npy", "zyx" if channels is None else "czyx")


@pytest.mark.parametrize(("channels", "dtype"), [(None, "uint16"), (2, "uint8"), (None, "uint64")])
def test_cloudvolume_takes_our_precomputed_volumes(tmp_path, validate, channels, dtype):
    group = pyramid(tmp_path, "precomputed", channels, dtype)
    validate(CLOUDVOLUME, group, tmp_path / "0.npy", "zyx" if channels is None else "czyx")


# -- what can be seen without them ------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 2])
def test_axes_have_names_where_xarray_and_ngff_look_for_them(tmp_path, channels):
    axes = [*"zyx"] if channels is None else [*"czyx"]
    for format, file, key in [
        ("zarr", ".zattrs", "_ARRAY_DIMENSIONS"), ("zarr3", "zarr.json", "dimension_names")
    ]:
        group = pyramid(tmp_path / format, format, channels)
        with open(f"{group}/s0/{file}") as stored:
            assert json.load(stored)[key] == axes


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_tensorstore_finds_the_format_by_itself(tmp_path, format, channels):
    group = pyramid(tmp_path, format, channels)
    place = group if format == "precomputed" else f"{group}/s0"
    driver = {"precomputed": "neuroglancer-precomputed", "zarr": "zarr2"}.get(format, format)
    array = ts.open(f"file://{place}/|{driver}:").result()
    values = array.read().result()
    if format in ("n5", "precomputed"):
        values = values.T
    expected = np.load(f"{tmp_path}/0.npy")
    np.testing.assert_array_equal(values.reshape(expected.shape), expected)

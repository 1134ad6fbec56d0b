"""Volumes of other libraries are read, ours are read by them."""

import json

import gunpowder as gp
import numpy as np
import pytest
import zarr
from funlib.geometry import Coordinate
from funlib.persistence import open_ds, prepare_ds

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume

SHAPE = (20, 33, 40)
FRAME = Frame((40, 4, 4), (400, 40, -80))


def random_values(*shape):
    return np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)


def ours(path, channels=None, format="zarr"):
    volume = Volume.create(
        str(path), shape=SHAPE, dtype="uint16", frame=FRAME, chunk_shape=(8, 8, 16),
        channels=channels, format=format,
    )
    lead = () if channels is None else (channels,)
    volume.write(volume.box, random_values(*lead, *SHAPE))
    return volume


# -- others read ours ------------------------------------------------------------------


def test_zarr_python_reads_our_zarr(tmp_path):
    volume = ours(tmp_path / "x.zarr" / "raw", channels=2)
    array = zarr.open(str(tmp_path / "x.zarr"), mode="r")["raw"]
    np.testing.assert_array_equal(array[:], volume.read(volume.box))
    assert array.attrs["resolution"] == [40, 4, 4]


@pytest.mark.filterwarnings("ignore:The N5FSStore is deprecated:FutureWarning")
def test_zarr_python_reads_our_n5(tmp_path):
    volume = ours(tmp_path / "x.n5" / "raw", format="n5")
    array = zarr.open(zarr.N5FSStore(str(tmp_path / "x.n5")), mode="r")["raw"]
    np.testing.assert_array_equal(array[:], volume.read(volume.box))


@pytest.mark.parametrize("channels", [None, 2])
def test_funlib_persistence_reads_our_zarr(tmp_path, channels):
    volume = ours(tmp_path / "x.zarr" / "raw", channels)
    array = open_ds(tmp_path / "x.zarr" / "raw")
    assert array.voxel_size == Coordinate(40, 4, 4)
    assert array.offset == Coordinate(400, 40, -80)
    assert array.channel_dims == (channels is not None)
    np.testing.assert_array_equal(array[array.roi], volume.read(volume.box))


def test_gunpowder_reads_our_zarr(tmp_path):
    volume = ours(tmp_path / "x.zarr" / "raw")
    raw = gp.ArrayKey("RAW")
    source = gp.ZarrSource(str(tmp_path / "x.zarr"), {raw: "raw"})
    with gp.build(source):
        assert source.spec[raw].roi == gp.Roi((400, 40, -80), (800, 132, 160))
        request = gp.BatchRequest({raw: gp.ArraySpec(gp.Roi((440, 60, -80), (160, 40, 80)))})
        batch = source.request_batch(request)
    np.testing.assert_array_equal(batch[raw].data, volume.read(Box((1, 5, 0), (4, 10, 20))))


# -- we read those of others -----------------------------------------------------------


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_we_read_zarr_python(tmp_path, separator, order):
    values = random_values(*SHAPE)
    array = zarr.open(
        str(tmp_path / "raw"), mode="w", shape=SHAPE, chunks=(7, 11, 13), dtype=values.dtype,
        order=order, dimension_separator=separator,
    )
    array[:] = values
    array.attrs["resolution"] = [50, 4.6, 4.6]
    array.attrs["offset"] = [100, 46, 92]
    assert not (tmp_path / ".zgroup").exists()
    volume = Volume.open(tmp_path / "raw")
    assert volume.frame == Frame((50, 4.6, 4.6), (100, 46, 92))
    assert volume.chunk_shape == (7, 11, 13)
    np.testing.assert_array_equal(volume.read(volume.box), values)
    box = Box((1, 2, 3), (10, 10, 10))
    np.testing.assert_array_equal(volume.read(box), values[box.slices])


def test_we_read_big_endian_zarr(tmp_path):
    values = random_values(*SHAPE)
    array = zarr.open(str(tmp_path / "raw"), mode="w", shape=SHAPE, dtype=">u2", chunks=(8, 8, 8))
    array[:] = values
    array.attrs["voxel_size"] = [40, 4, 4]
    volume = Volume.open(tmp_path / "raw")
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(volume.read(volume.box), values)


def test_we_read_funlib_persistence(tmp_path):
    values = random_values(3, *SHAPE)
    array = prepare_ds(
        tmp_path / "x.zarr" / "raw", values.shape, offset=(400, 40, -80), voxel_size=(40, 4, 4),
        axis_names=["c^", "z", "y", "x"], units=["nm"] * 3, dtype=values.dtype,
        chunk_shape=(3, 8, 8, 8),
    )
    array[:] = values
    volume = Volume.open(tmp_path / "x.zarr" / "raw")
    assert (volume.channels, volume.frame) == (3, FRAME)
    np.testing.assert_array_equal(volume.read(volume.box), values)


@pytest.mark.filterwarnings("ignore:The N5FSStore is deprecated:FutureWarning")
def test_we_read_n5_of_zarr_python_with_resolution_x_first(tmp_path):
    values = random_values(*SHAPE)
    group = zarr.open(zarr.N5FSStore(str(tmp_path / "x.n5")), mode="w")
    array = group.create_dataset("raw", data=values, chunks=(8, 8, 16))
    array.attrs["resolution"] = [4, 4, 40]
    array.attrs["offset"] = [-80, 40, 400]
    volume = Volume.open(tmp_path / "x.n5" / "raw")
    assert (volume.shape, volume.frame) == (SHAPE, FRAME)
    np.testing.assert_array_equal(volume.read(volume.box), values)


def test_we_read_a_level_of_an_ngff_pyramid(tmp_path):
    group = zarr.open_group(str(tmp_path / "em.zarr"), mode="w")
    for level in range(2):
        group.create_dataset(f"s{level}", data=random_values(8 >> level, 8, 8), chunks=(4, 4, 4))
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    steps = [
        {"path": f"s{i}", "coordinateTransformations": [
            {"type": "scale", "scale": [40 << i, 4 << i, 4 << i]},
            {"type": "translation", "translation": [20 << i, 2 << i, 2 << i]},
        ]}
        for i in range(2)
    ]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": steps}]
    assert Volume.open(tmp_path / "em.zarr" / "s0").frame == Frame((40, 4, 4))
    assert Volume.open(tmp_path / "em.zarr" / "s1").frame == Frame((80, 8, 8))


def test_an_array_that_does_not_tell_its_voxel_size_is_refused(tmp_path):
    zarr.open(str(tmp_path / "raw"), mode="w", shape=SHAPE, dtype="u1", chunks=(8, 8, 8))
    with pytest.raises(VolumeError, match=f"{tmp_path}/raw does not say how large"):
        Volume.open(tmp_path / "raw")


@pytest.mark.parametrize("shape", [(33, 40), (2, 3, 20, 33, 40)])
def test_an_array_with_other_than_three_or_four_axes_is_refused(tmp_path, shape):
    array = zarr.open(str(tmp_path / "raw"), mode="w", shape=shape, dtype="u1", chunks=shape)
    array.attrs["resolution"] = [40, 4, 4]
    with pytest.raises(VolumeError, match=f"has {len(shape)} axes"):
        Volume.open(tmp_path / "raw")


def test_precomputed_of_others_has_no_channel_axis_for_one_channel(tmp_path):
    ours(tmp_path / "raw", channels=1, format="precomputed")
    (tmp_path / "raw" / "em_blocks.json").unlink()
    volume = Volume.open(tmp_path / "raw")
    assert (volume.channels, volume.shape, volume.frame) == (None, SHAPE, FRAME)
    info = json.loads((tmp_path / "raw" / "info").read_text())
    assert info["scales"][0]["voxel_offset"] == [-20, 10, 10]

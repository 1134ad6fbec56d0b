"""Arrays of other programs, axes in any order: the same voxels at the same place in every format."""

import itertools
import json

import h5py
import numpy as np
import pytest
import tensorstore as ts
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.labels import open_labels

FRAME = Frame((40, 4.6, 4), (400, 46, -8))
SIZE = dict(zip("zyx", FRAME.voxel_size, strict=True)) | {"c": 1, "t": 1}
OFFSET = dict(zip("zyx", FRAME.offset, strict=True)) | {"c": 0, "t": 0}
LENGTH = {"t": 1, "c": 2, "z": 5, "y": 6, "x": 7}
VOXELS = np.random.default_rng(0).integers(1, 250, (2, 5, 6, 7)).astype("u2")  # (c, z, y, x)
BOX = Box((1, 2, 3), (3, 4, 2))


def stored(axes, channels=2):
    """The voxels as an array with these axes."""
    values = VOXELS[:channels]
    have = "czyx"
    if "c" not in axes:
        values, have = values[0], "zyx"
    if "t" in axes:
        values, have = values[None], f"t{have}"
    return np.ascontiguousarray(values.transpose([have.index(a) for a in axes]))


def expected(axes, channels=2):
    return VOXELS if "c" in axes and channels == 2 else VOXELS[0]


def ngff(axes, path):
    centre = {a: OFFSET[a] + SIZE[a] / 2 for a in "zyx"} | {"c": 0, "t": 0}
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    return [{
        "axes": [{"name": a, **kinds.get(a, {"type": "space", "unit": "micrometer"})} for a in axes],
        "datasets": [{"path": path, "coordinateTransformations": [
            {"type": "scale", "scale": [SIZE[a] / 1e3 if a in "zyx" else 1 for a in axes]},
            {"type": "translation", "translation": [centre[a] / 1e3 for a in axes]},
        ]}],
    }]


def zarr2(folder, axes, values, declare):
    array = zarr.open(str(folder / "x.zarr/a/em"), mode="w", shape=values.shape, dtype=values.dtype,
                      chunks=[min(3, n) for n in values.shape])
    array[:] = values
    declare(array.attrs, zarr.open_group(str(folder / "x.zarr"), mode="a").attrs)
    return f"{folder}/x.zarr/a/em"


def funlib(axes):
    def declare(own, _):
        space = [a for a in axes if a in "zyx"]
        own["axis_names"] = ["c^" if a == "c" else a for a in axes]
        own["voxel_size"], own["offset"] = [SIZE[a] for a in space], [OFFSET[a] for a in space]
    return declare


def xarray(axes):
    def declare(own, _):
        own["_ARRAY_DIMENSIONS"] = [*axes]
        own["resolution"], own["offset"] = [SIZE[a] for a in axes], [OFFSET[a] for a in axes]
    return declare


def cosem(axes):
    def declare(own, _):
        own["transform"] = {
            "axes": [*axes], "scale": [SIZE[a] for a in axes], "units": ["nm"] * len(axes),
            "translate": [OFFSET[a] + (SIZE[a] / 2 if a in "zyx" else 0) for a in axes],
        }
    return declare


def ome(axes):
    def declare(_, root):
        root["multiscales"] = ngff(axes, "a/em")
    return declare


def check(volume, axes, channels=2):
    wanted = expected(axes, channels)
    assert volume.frame.voxel_size == pytest.approx(FRAME.voxel_size)
    assert volume.frame.offset == pytest.approx(FRAME.offset)
    assert volume.shape == (5, 6, 7)
    assert volume.channels == (2 if wanted.ndim == 4 else None)
    np.testing.assert_array_equal(volume.read(volume.box), wanted)
    np.testing.assert_array_equal(volume.read(BOX), wanted[(..., *BOX.slices)])


ORDERS = ["".join(p) for p in itertools.permutations("zyx")]


@pytest.mark.parametrize(("dialect", "axes"), [
    *itertools.product([funlib, xarray, cosem, ome], [*ORDERS, "zyxc", "czyx", "xyzc"]),
    *itertools.product([funlib, xarray, ome], ["tczyx", "tzyx", "xytzc"]),
])
def test_declared_axes_are_brought_in_order(tmp_path, dialect, axes):
    check(Volume.open(zarr2(tmp_path, axes, stored(axes), dialect(axes))), axes)


@settings(max_examples=40, deadline=None)
@given(
    axes=st.permutations("tczyx").flatmap(lambda p: st.sampled_from([p, [a for a in p if a != "t"],
                                                                     [a for a in p if a in "zyx"]])),
    channels=st.sampled_from([1, 2]), format=st.sampled_from(["zarr", "zarr3", "n5"]),
)
def test_what_a_config_tells_is_what_is_read(tmp_path_factory, axes, channels, format):
    path = str(tmp_path_factory.mktemp("x") / "em")
    values = stored(axes, channels)
    if format == "n5":
        values = values.T
    array = ts.open({"driver": format, "kvstore": f"file://{path}"}, create=True, dtype=values.dtype,
                    shape=values.shape).result()
    array.write(values).result()
    told = VolumeInput(path=path, voxel_size=FRAME.voxel_size, offset=FRAME.offset, axes=tuple(axes))
    check(Volume.open(told), axes, channels)


def test_axes_of_zarr_v3_decide(tmp_path):
    array = ts.open(
        {"driver": "zarr3", "kvstore": f"file://{tmp_path}/em", "metadata": {
            "dimension_names": [*"xzyc"],
            "attributes": {"voxel_size": [SIZE[a] for a in "xzy"], "offset": [OFFSET[a] for a in "xzy"]},
        }}, create=True, dtype="uint16", shape=(7, 5, 6, 2),
    ).result()
    array.write(stored("xzyc")).result()
    check(Volume.open(f"{tmp_path}/em"), "xzyc")


def test_axes_of_n5_decide(tmp_path):
    array = ts.open(
        {"driver": "n5", "kvstore": f"file://{tmp_path}/em", "metadata": {
            "axes": [*"zxyc"], "resolution": [SIZE[a] for a in "zxyc"],
            "offset": [OFFSET[a] for a in "zxyc"], "units": ["nm", "nm", "nm", ""],
        }}, create=True, dtype="uint16", shape=(5, 7, 6, 2),
    ).result()
    array.write(stored("zxyc")).result()
    check(Volume.open(f"{tmp_path}/em"), "zxyc")


def test_a_volume_with_axes_in_another_order_can_be_written(tmp_path):
    path = zarr2(tmp_path, "xzy", stored("xzy"), funlib("xzy"))
    volume = Volume.open(path, mode="r+")
    assert volume.chunk_shape == (3, 3, 3)
    box = Box((3, 0, 3), (2, 3, 3))
    volume.write(box, volume.read(box) + np.uint16(1))
    changed = VOXELS[0].copy()
    changed[box.slices] += 1
    np.testing.assert_array_equal(zarr.open(path, mode="r")[:].transpose(1, 2, 0), changed)


def test_several_points_in_time_are_no_volume(tmp_path):
    values = np.stack([stored("zyx")] * 2)
    with pytest.raises(VolumeError, match="has 2 points in time"):
        Volume.open(zarr2(tmp_path, "tzyx", values, ome("tzyx")))


@pytest.mark.parametrize("axes", ["zyx", "xyz", "zyxc", "tzxyc"])
@pytest.mark.parametrize("told", [True, False])
def test_labels_of_hdf5_are_brought_in_order(tmp_path, axes, told):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("ids", data=stored(axes, 1), chunks=True)
        if not told:
            data.attrs["axes"] = json.dumps([*axes]) if axes == "zyx" else "".join(axes)
            data.attrs["resolution"] = [SIZE[a] for a in axes]
            data.attrs["offset"] = [OFFSET[a] for a in axes]
    path = f"{tmp_path}/a.h5:ids"
    given = VolumeInput(path=path, voxel_size=FRAME.voxel_size, offset=FRAME.offset, axes=tuple(axes))
    with open_labels(given if told else path) as labels:
        assert (labels.shape, labels.frame) == ((5, 6, 7), FRAME)
        assert all(c <= n for c, n in zip(labels.chunk_shape, labels.shape, strict=True))
        np.testing.assert_array_equal(labels.read(BOX), VOXELS[0][BOX.slices])
        ids, inside = labels.at(np.array([[400 + 2.5 * 40, 46 + 3.5 * 4.6, -8 + 4.5 * 4]]))
        assert inside.all() and ids == VOXELS[0, 2, 3, 4]


def test_labels_of_hdf5_with_channels_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ids", data=stored("zyxc")).attrs["axes"] = "zyxc"
    with pytest.raises(ConfigError, match=r"\(2, 5, 6, 7\)"), open_labels(f"{tmp_path}/a.h5:ids"):
        pass


@pytest.mark.parametrize("scale", [[40, 4, 4], "4 nm", {"z": 40}, True, 0, -2, None])
def test_an_attribute_scale_of_other_meaning_is_ignored(tmp_path, scale):
    def declare(own, _):
        funlib("zyx")(own, _)
        own["scale"] = scale
    volume = Volume.open(zarr2(tmp_path, "zyx", stored("zyx"), declare))
    assert volume.scale is None
    np.testing.assert_array_equal(volume.read_scaled(BOX), VOXELS[0][BOX.slices].astype("f4"))


BDV = {
    "setup0": {"downsamplingFactors": [[1, 1, 1], [2, 4, 1]]},
    "setup0/timepoint0": {"multiScale": True, "resolution": [4, 4.6, 40]},
}
PAINTERA = {"setup0/timepoint0": {
    "multiScale": True, "resolution": [4, 4.6, 40], "offset": [-8, 46, 400],
}}


@pytest.mark.parametrize(("groups", "own", "offset"), [
    (BDV, {}, (0, 0, 0)), (PAINTERA, {"downsamplingFactors": [2, 4, 1]}, FRAME.offset),
])
def test_groups_of_n5_tell_the_place_of_levels(tmp_path, groups, own, offset):
    path = tmp_path / "x.n5/setup0/timepoint0/s1"
    array = ts.open(
        {"driver": "n5", "kvstore": f"file://{path}", "metadata": own}, create=True, dtype="uint16",
        shape=(7, 6, 5),
    ).result()
    array.write(VOXELS[0].T).result()
    for name, attributes in groups.items():
        (tmp_path / "x.n5" / name / "attributes.json").write_text(json.dumps(attributes))
    volume = Volume.open(str(path))
    assert volume.frame == Frame((40, 18.4, 8), offset)
    np.testing.assert_array_equal(volume.read(volume.box), VOXELS[0])

"""Where the voxels lie, in every dialect of attributes that EM readers and writers have."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.config import VolumeInput
from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame
from em_blocks.volumes.metadata import Group, Stored, resolve
from em_blocks.volumes.metadata.attributes import frame_attributes

FRAME = Frame((50, 4.6, 4.7), (100, 46, -94))
SHAPE = (4, 5, 6)


def resolved(attributes, group=None, *, shape=SHAPE, told=None, name="s0", groups=None, **stored):
    """The answer for an array /data/x.zarr/s0; `group` has the attributes of /data/x.zarr."""
    source = f"/data/x.zarr/{name}"
    if groups is None:
        groups = {"/data/x.zarr": group or {}}
    above = [Group(path, source.removeprefix(f"{path}/"), found) for path, found in groups.items()]
    told = told and VolumeInput(path=source, **told)
    return resolve(Stored(source, shape, attributes, above, **stored), told)


def read(*args, **options):
    return resolved(*args, **options).frame


def close(frame, voxel_size, offset):
    return frame.voxel_size == pytest.approx(voxel_size) and frame.offset == pytest.approx(offset)


@pytest.mark.parametrize("channels", [False, True])
def test_what_we_write_we_read(channels):
    shape = (2, *SHAPE) if channels else SHAPE
    assert read(frame_attributes(FRAME, channels=channels), shape=shape) == FRAME


def test_every_dialect_of_ours_alone_gives_the_voxel_size():
    ours = frame_attributes(FRAME, channels=False)
    for key in ["voxel_size", "resolution", "pixelResolution"]:
        assert read({key: ours[key]}).voxel_size == FRAME.voxel_size


def test_funlib_with_channels_and_default_axis_names():
    attributes = {
        "voxel_size": [40, 4, 4],
        "offset": [400, 40, 80],
        "axis_names": ["c0^", "d0", "d1", "d2"],
        "units": ["", "", ""],
    }
    assert read(attributes, shape=(2, *SHAPE)) == Frame((40, 4, 4), (400, 40, 80))


def test_an_absent_offset_is_zero():
    assert read({"resolution": [40, 4, 4]}) == Frame((40, 4, 4))


def test_values_for_the_channel_axis_are_ignored():
    assert read({"resolution": [1, 40, 4, 4], "offset": [0, 400, 40, 80]}) == Frame(
        (40, 4, 4), (400, 40, 80)
    )


def test_micrometres_become_nm():
    attributes = {"voxel_size": [0.05, 0.0046, 0.0047], "offset": [1, 2, 3], "units": ["um"] * 3}
    assert close(read(attributes), (50, 4.6, 4.7), (1000, 2000, 3000))


def test_n5_resolution_and_its_offset_are_x_first():
    attributes = {"resolution": [4.7, 4.6, 50], "offset": [-94, 46, 100]}
    assert read(attributes, n5=True) == FRAME


def test_n5_pixel_resolution_is_x_first():
    attributes = {"pixelResolution": {"dimensions": [4.7, 4.6, 50], "unit": "nm"}}
    assert read(attributes, n5=True) == Frame((50, 4.6, 4.7))
    assert read({"pixelResolution": [4.7, 4.6, 50]}, n5=True) == Frame((50, 4.6, 4.7))
    attributes["pixelResolution"] = {"dimensions": [0.0047, 0.0046, 0.05], "unit": "um"}
    assert close(read(attributes, n5=True), (50, 4.6, 4.7), (0, 0, 0))


@pytest.mark.parametrize("axes", [["z", "y", "x"], ["x", "y", "z"], ["c", "x", "z", "y"]])
def test_cosem_axes_may_be_in_any_order_and_its_positions_are_voxel_centres(axes):
    scale = {"z": 50, "y": 4.6, "x": 4.7, "c": 1}
    centre = {"z": 125, "y": 48.3, "x": -91.65, "c": 0}
    transform = {
        "axes": axes,
        "scale": [scale[a] for a in axes],
        "translate": [centre[a] for a in axes],
        "units": ["nm"] * len(axes),
    }
    found = resolved({"transform": transform}, shape=(2, *SHAPE)[-len(axes):])
    assert found.axes == tuple(axes)
    assert close(found.frame, FRAME.voxel_size, FRAME.offset)


def ngff(datasets, axes="zyx", unit="nanometer", **more):
    axes = [{"name": a, "type": "space", "unit": unit} if a in "zyx" else {"name": a} for a in axes]
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets, **more}]}


def scaled(path, scale, translation=None):
    steps = [{"type": "scale", "scale": scale}]
    if translation is not None:
        steps.append({"type": "translation", "translation": translation})
    return {"path": path, "coordinateTransformations": steps}


def test_ngff_gives_each_level_its_own_voxel_size():
    group = ngff([scaled("s1", [100, 8, 8]), scaled("s0", [50, 4, 4], [125, 48, -92])])
    assert close(read({}, group), (50, 4, 4), (100, 46, -94))


def test_ngff_with_channels_and_micrometres():
    group = ngff([scaled("s0", [1, 0.05, 0.004, 0.004])], axes="czyx", unit="micrometer")
    assert close(read({}, group, shape=(2, *SHAPE)), (50, 4, 4), (-25, -2, -2))


def test_ngff_transformations_of_all_levels_come_after_those_of_one():
    group = ngff(
        [scaled("s0", [2, 2, 2], [1, 1, 1])],
        coordinateTransformations=[{"type": "scale", "scale": [10, 4, 4]}],
    )
    assert close(read({}, group), (20, 8, 8), (0, 0, 0))


def test_ngff_of_zarr_v3_is_one_level_deeper():
    assert close(read({}, {"ome": ngff([scaled("s0", [50, 4, 4])])}), (50, 4, 4), (-25, -2, -2))


def test_ngff_of_other_arrays_does_not_count():
    with pytest.raises(VolumeError, match="how large its voxels are"):
        read({}, ngff([scaled("s7", [50, 4, 4])]))


def test_without_voxel_size_nothing_is_guessed():
    with pytest.raises(VolumeError) as caught:
        read({"offset": [0, 0, 0]})
    assert "/data/x.zarr/s0" in str(caught.value)
    assert '"voxel_size": [z, y, x]' in str(caught.value)


@pytest.mark.parametrize(
    "attributes",
    [
        {"voxel_size": "4 nm"},
        {"voxel_size": [40, 4]},
        {"voxel_size": [40, 4, -4]},
        {"voxel_size": [40, 4, None]},
        {"voxel_size": 4},
        {"voxel_size": [40, 4, 4], "units": ["furlong"] * 3},
        {"voxel_size": [40, 4, True]},
        {"voxel_size": [40, 4, float("nan")]},
        {"voxel_size": [40, 4, 4], "offset": [0, float("nan"), 0]},
        {"voxel_size": {"z": 40, "y": 4, "x": 4}},
        {"voxel_size": [40, 4, 4], "units": 3},
        {"voxel_size": [40, 4, 4], "units": "furlong"},
        {"voxel_size": [40, 4, 4], "offset": [0, 0]},
        {"voxel_size": [40, 4, 4], "offset": "0"},
        {"element_size_um": "0.04"},
        {"transform": {"scale": [40, 4, 4], "axes": ["t", "y", "x"]}},
        {"transform": {"scale": 40}},
        {"transform": {"scale": [40, 4, 4], "units": ["nm"] * 3, "translate": ["a", "b", "c"]}},
        {"pixelResolution": "4 nm"},
        {"pixelResolution": [4, 4, 40], "downsamplingFactors": [2, 0, 1]},
        {"pixelResolution": {"unit": "nm"}},
    ],
)
def test_attributes_that_make_no_sense_are_an_error_with_the_path(attributes):
    with pytest.raises(VolumeError, match=r"/data/x.zarr/s0 .*cannot be understood"):
        read(attributes)


@pytest.mark.parametrize(
    "group",
    [
        ngff([scaled("s0", [50, 4])]),
        ngff([scaled("s0", [50, 4, "4"])]),
        ngff([scaled("s0", [50, 4, 4])], unit="parsec"),
        ngff([{"path": "s0", "coordinateTransformations": [{"type": "affine"}]}]),
        ngff([{"path": "s0", "coordinateTransformations": 3}]),
    ],
)
def test_ngff_that_makes_no_sense_is_an_error(group):
    with pytest.raises(VolumeError, match="cannot be understood"):
        read({}, group)


@pytest.mark.parametrize(
    "group",
    [
        {"multiscales": 3}, {"multiscales": {}}, {"multiscales": [3]}, {"multiscales": [{}]},
        {"multiscales": [{"datasets": 3}]}, {"multiscales": [{"datasets": [3]}]},
        {"ome": 3}, {"ome": {"multiscales": "s0"}}, {"multiscales": [{"datasets": [{"path": 0}]}]},
        {"multiScale": 1}, {"downsamplingFactors": 2}, {"scales": "many"},
    ],
)
def test_group_attributes_of_other_meaning_are_ignored(group):
    assert read({"voxel_size": [40, 4, 4]}, group) == Frame((40, 4, 4))
    assert read({"voxel_size": [40, 4, 4]}, group, n5=True) == Frame((40, 4, 4))


# -- units -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("nm", 1), ("nanometer", 1), ("Nanometers", 1), ("um", 1e3), ("µm", 1e3), ("\u03bcm", 1e3),
        ("micron", 1e3), ("micrometre", 1e3), ("mm", 1e6), ("centimeter", 1e7), ("m", 1e9),
        ("meters", 1e9), ("angstrom", 0.1), ("Å", 0.1), ("\u212b", 0.1), ("picometer", 1e-3),
    ],
)
def test_every_unit_of_length_becomes_nm(unit, nm):
    values = [40 / nm, 4.6 / nm, 4 / nm]
    group = ngff([scaled("s0", values)], unit=unit)
    transform = {"axes": [*"zyx"], "scale": values, "units": [unit] * 3}
    pixels = {"unit": unit, "dimensions": values[::-1]}
    for frame in [
        read({}, group), read({"transform": transform}), read({"pixelResolution": pixels}),
        read({"voxel_size": values, "units": [unit] * 3}),
        read({"resolution": values[::-1], "units": [unit] * 3}, n5=True),
    ]:
        assert frame.voxel_size == pytest.approx((40, 4.6, 4))


@pytest.mark.parametrize("unit", [None, "pixel", "px", ""])
@pytest.mark.parametrize(
    "dialect",
    [
        lambda unit: ({}, ngff([scaled("s0", [40, 4, 4])], unit=unit)),
        lambda unit: ({"transform": {"axes": [*"zyx"], "scale": [40, 4, 4], "units": [unit] * 3}}, {}),
        lambda unit: ({"pixelResolution": {"dimensions": [4, 4, 40], "unit": unit}}, {}),
    ],
)
def test_numbers_without_a_unit_are_asked_for(dialect, unit):
    attributes, group = dialect(unit)
    with pytest.raises(VolumeError) as caught:
        read(attributes, group)
    assert "[40.0, 4.0, 4.0] (zyx) in" in str(caught.value)
    assert "has no unit of length" in str(caught.value)
    assert '{"path": "/data/x.zarr/s0", "voxel_size": [z, y, x]' in str(caught.value)
    told = {"voxel_size": (50, 4.6, 4.7)}
    assert read(attributes, group, told=told).voxel_size == (50, 4.6, 4.7)
    assert read({**attributes, "voxel_size": [30, 3, 3]}, group).voxel_size == (30, 3, 3)


def test_pixels_are_no_unit_of_voxel_size_either():
    with pytest.raises(VolumeError, match="'voxel_size' has no unit of length"):
        read({"voxel_size": [1, 1, 1], "units": ["pixel"] * 3})


def test_of_a_place_without_unit_the_voxels_count():
    group = ngff([scaled("s0", [2, 1, 1], [20, 4, -4])], unit=None)
    frame = read({}, group, told={"voxel_size": (40, 4.6, 5)})
    assert close(frame, (40, 4.6, 5), (380, 3.5 * 4.6, -4.5 * 5))


# -- axes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "axes", "shape"),
    [
        ({"axis_names": ["x", "y", "z"]}, "xyz", SHAPE),
        ({"axis_names": ["z", "y", "x", "c^"]}, "zyxc", (4, 5, 6, 2)),
        ({"axis_names": ["affinities^", "z", "y", "x"]}, "czyx", (2, *SHAPE)),
        ({"axis_names": ["d0", "d1", "d2", "c0^"]}, "zyxc", (4, 5, 6, 2)),
        ({"_ARRAY_DIMENSIONS": ["x", "y", "z"]}, "xyz", SHAPE),
        ({"_ARRAY_DIMENSIONS": ["Z", "Y", "X"]}, "zyx", SHAPE),
        ({"_ARRAY_DIMENSIONS": ["offset", "z", "y", "x"]}, "czyx", (3, *SHAPE)),
        ({"_ARRAY_DIMENSIONS": ["time", "channel", "z", "y", "x"]}, "tczyx", (1, 2, *SHAPE)),
        ({"_ARRAY_DIMENSIONS": ["dim_0", "dim_1", "dim_2"]}, "zyx", SHAPE),
        ({"axes": ["x", "y", "z"]}, "xyz", SHAPE),
        ({"axes": "xyz"}, "xyz", SHAPE),
        ({"axes": [{"name": "y", "type": "space"}, {"name": "x"}, {"name": "z"}]}, "yxz", SHAPE),
        ({"axes": 3}, "zyx", SHAPE),
        ({"axes": ["x", "y"]}, "zyx", SHAPE),
        ({"axistags": '{"axes": [{"key": "x"}, {"key": "y"}, {"key": "z"}]}'}, "xyz", SHAPE),
        ({"axistags": "no"}, "zyx", SHAPE),
        ({}, "zyx", SHAPE),
        ({}, "czyx", (3, *SHAPE)),
    ],
)
def test_declared_axes_decide(attributes, axes, shape):
    size = {"t": 1, "c": 1, "z": 40, "y": 4.6, "x": 4}
    found = resolved({"voxel_size": [size[a] for a in axes], **attributes}, shape=shape)
    assert "".join(found.axes) == axes
    assert found.frame.voxel_size == (40, 4.6, 4)
    # funlib lists axes of space alone.
    space = resolved({"voxel_size": [size[a] for a in axes if a in "zyx"], **attributes}, shape=shape)
    assert space == found


def test_axes_of_zarr_v3_and_of_hdf5_have_names_beside_the_attributes():
    assert resolved({"voxel_size": [4, 4.6, 40]}, names=["x", "y", "z"]) == (
        tuple("xyz"), Frame((40, 4.6, 4)), True
    )
    assert resolved({"voxel_size": [40, 4, 4]}, names=[None, None, None]).axes == tuple("zyx")
    assert resolved({"voxel_size": [40, 4, 4]}, names=["", "", ""]).named is False


def test_axes_of_ngff_are_those_of_the_array():
    group = ngff([scaled("s0", [4, 4.6, 40], [2, 2.3, 20])], axes="xyz")
    assert resolved({}, group) == (tuple("xyz"), Frame((40, 4.6, 4)), True)
    # Before 0.4 they were names alone, and had no units.
    old = {"multiscales": [{"axes": [*"tczyx"], "datasets": [{"path": "s0"}]}]}
    assert resolved({"voxel_size": [40, 4, 4]}, old, shape=(1, 2, *SHAPE)).axes == tuple("tczyx")


def test_n5_lists_axes_as_it_lists_dimensions():
    assert resolved({"resolution": [4, 4.6, 40], "axes": [*"xyz"]}, n5=True) == (
        tuple("zyx"), Frame((40, 4.6, 4)), True
    )
    assert resolved({"resolution": [40, 4.6, 4], "axes": [*"zyx"]}, n5=True) == (
        tuple("xyz"), Frame((40, 4.6, 4)), True
    )
    attributes = {"transform": {"axes": [*"xyz"], "scale": [4, 4.6, 40], "units": ["nm"] * 3}}
    assert resolved(attributes, n5=True).axes == tuple("zyx")
    assert resolved(attributes).axes == tuple("xyz")


@pytest.mark.parametrize("names", [["t", "y", "x"], ["z", "z", "x"], ["c", "y", "x"]])
def test_axes_that_are_none_of_a_volume_are_an_error(names):
    with pytest.raises(VolumeError, match=r"axes of /data/x.zarr/s0 are .* but a volume has z, y and x"):
        read({"voxel_size": [40, 4, 4], "_ARRAY_DIMENSIONS": names})
    told = {"axes": [*"zyx"]}
    assert read({"voxel_size": [40, 4, 4], "_ARRAY_DIMENSIONS": names}, told=told) == Frame((40, 4, 4))


def test_axes_that_contradict_each_other_are_refused_with_both():
    attributes = {"voxel_size": [40, 4, 4], "axis_names": [*"zyx"], "_ARRAY_DIMENSIONS": [*"xyz"]}
    with pytest.raises(VolumeError, match=r"axes is .*_ARRAY_DIMENSIONS.* but .*axis_names"):
        read(attributes)
    assert resolved(attributes, told={"axes": [*"xyz"]}).axes == tuple("xyz")


def test_more_than_four_axes_need_names():
    with pytest.raises(VolumeError, match=r"has 5 axes .*Nothing names its axes"):
        read({"voxel_size": [40, 4, 4]}, shape=(2, 1, *SHAPE))
    told = {"axes": [*"ctzyx"]}
    assert resolved({"voxel_size": [40, 4, 4]}, shape=(2, 1, *SHAPE), told=told).axes == tuple("ctzyx")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((1, 1, *SHAPE), "tczyx"), ((1, 3, *SHAPE), "tczyx"), ((*SHAPE, 1), "zyxc"),
     ((1, *SHAPE, 1), "tzyxc"), ((3, *SHAPE), "czyx"), ((1, *SHAPE), "czyx"), ((1, 6, 7, 1), "czyx")],
)
def test_single_entries_around_a_volume_that_nothing_names_are_none_of_its_axes(shape, axes):
    assert resolved({"voxel_size": [40, 4, 4]}, shape=shape).axes == tuple(axes)


# -- levels of pyramids ----------------------------------------------------------------------

BDV_FACTORS = {"downsamplingFactors": [[1, 1, 1], [2, 2, 1], [4, 4, 1]], "dataType": "uint8"}


@pytest.mark.parametrize(
    ("attributes", "groups", "voxel_size", "offset"),
    [
        # n5-spark: the size of s0, and factors, x first.
        ({"pixelResolution": {"unit": "nm", "dimensions": [4, 4.6, 40]},
          "downsamplingFactors": [2, 4, 1]}, {}, (40, 18.4, 8), (0, 0, 0)),
        ({"resolution": [4, 4.6, 40], "offset": [8, 46, 400], "downsamplingFactors": [2, 4, 1]},
         {}, (40, 18.4, 8), (400, 46, 8)),
        # The same factor along all axes.
        ({"resolution": [4, 4.6, 40], "downsamplingFactors": 2}, {}, (80, 9.2, 8), (0, 0, 0)),
        # Paintera: voxel size and offset in the group.
        ({"downsamplingFactors": [2, 4, 1]},
         {"/data/x.zarr/em": {"multiScale": True, "resolution": [4, 4.6, 40], "offset": [8, 46, 400]}},
         (40, 18.4, 8), (400, 46, 8)),
        # BDV: voxel size in the timepoint, factors of all levels in the setup.
        ({}, {"/data/x.zarr/em/t0": {"multiScale": True, "resolution": [4, 4.6, 40]},
              "/data/x.zarr/em": BDV_FACTORS}, (40, 9.2, 8), (0, 0, 0)),
        # n5-viewer: both in the group of all levels.
        ({}, {"/data/x.zarr/em": {"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.0046, 0.04]},
                                  "scales": [[1, 1, 1], [2, 2, 1]]}}, (40, 9.2, 8), (0, 0, 0)),
        # COSEM: the level's own size beside the factors.
        ({"pixelResolution": {"unit": "nm", "dimensions": [8, 9.2, 40]},
          "downsamplingFactors": [2, 2, 1],
          "transform": {"axes": [*"zyx"], "scale": [40, 9.2, 8], "translate": [20, 4.6, 4],
                        "units": ["nm"] * 3}}, {}, (40, 9.2, 8), (0, 0, 0)),
        # The level's own size, and that of s0 in the group.
        ({"pixelResolution": {"unit": "nm", "dimensions": [8, 9.2, 40]}},
         {"/data/x.zarr/em": {"pixelResolution": {"unit": "nm", "dimensions": [4, 4.6, 40]}}},
         (40, 9.2, 8), (0, 0, 0)),
    ],
)
def test_a_level_of_java_programs_has_its_own_voxel_size(attributes, groups, voxel_size, offset):
    frame = read(attributes, name="em/t0/s1", groups=groups, n5=True)
    assert close(frame, voxel_size, offset)


def test_a_level_whose_factors_are_not_said_is_asked_for():
    groups = {"/data/x.zarr/em": {"resolution": [4, 4.6, 40]}}
    assert read({}, name="em/s0", groups=groups, n5=True) == Frame((40, 4.6, 4))
    with pytest.raises(VolumeError, match="nothing says by which factors s2 is coarser"):
        read({}, name="em/s2", groups=groups, n5=True)


def test_zarr_resolution_beside_java_factors_may_mean_either_order():
    attributes = {"resolution": [40, 4.6, 4], "downsamplingFactors": [2, 2, 1]}
    with pytest.raises(VolumeError, match="it may list x or z first"):
        read(attributes, name="s1")
    assert read({**attributes, "downsamplingFactors": [2, 2, 2]}, name="s1").voxel_size == (80, 9.2, 8)


def test_ngff_may_stand_several_groups_up():
    groups = {"/data/x.zarr/a/b": {}, "/data/x.zarr/a": {}, "/data/x.zarr": ngff(
        [scaled("a/b/s0", [40, 4, 4], [20, 2, 2]), scaled("./a/b/s1", [80, 8, 8], [40, 4, 4])])}
    assert read({}, name="a/b/s0", groups=groups) == Frame((40, 4, 4))
    assert read({}, name="a/b/s1", groups=groups) == Frame((80, 8, 8))


def test_multiscales_may_hold_cosem_transforms():
    transform = {"axes": [*"zyx"], "scale": [40, 4, 4], "translate": [60, 2, 6], "units": ["nm"] * 3}
    group = {"multiscales": [{"datasets": [{"path": "s0", "transform": transform}], "name": "em"}]}
    assert read({}, group, n5=True) == Frame((40, 4, 4), (40, 0, 4))


def test_hdf5_element_size_is_micrometres():
    assert close(read({"element_size_um": [0.04, 0.0046, 0.004]}), (40, 4.6, 4), (0, 0, 0))
    attributes = {"element_size_um": [0.04, 0.004, 0.004], "offset": [8, 0, 4]}
    assert close(read(attributes), (40, 4, 4), (8, 0, 4))


# -- contradictions, and what a config tells -------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "group", "names"),
    [
        ({"voxel_size": [40, 4, 4], "resolution": [40, 4, 8]}, {}, ("'voxel_size'", "'resolution'")),
        ({"voxel_size": [40, 4, 4]}, ngff([scaled("s0", [40, 4, 5])]), ("'voxel_size'", "multiscales")),
        ({"resolution": [40, 4, 4], "pixelResolution": [4, 4, 30]}, {}, ("'resolution'", "'pixelRes")),
        ({"element_size_um": [0.04, 0.004, 0.004], "resolution": [4, 4, 4]}, {},
         ("'element_size_um'", "'resolution'")),
        ({"transform": {"axes": [*"zyx"], "scale": [40, 4, 4], "units": ["nm"] * 3}},
         ngff([scaled("s0", [40, 8, 8])]), ("'transform'", "multiscales of /data/x.zarr")),
    ],
)
def test_voxel_sizes_that_contradict_each_other_are_refused_with_both(attributes, group, names):
    with pytest.raises(VolumeError, match="contradict each other: voxel_size is") as caught:
        read(attributes, group)
    assert all(name in str(caught.value) for name in names)
    told = {"voxel_size": (41, 5, 5)}
    assert read(attributes, group, told=told).voxel_size == (41, 5, 5)


def test_offsets_that_contradict_each_other_are_refused_with_both():
    attributes = {"voxel_size": [40, 4, 4], "offset": [0, 0, 0]}
    group = ngff([scaled("s0", [40, 4, 4], [420, 2, 2])])
    with pytest.raises(VolumeError, match=r"offset is \[0.0, 0.0, 0.0\] in .* but \[400.0, 0.0, 0.0\]"):
        read(attributes, group)
    assert read(attributes, group, told={"offset": (400, 0, 0)}) == Frame((40, 4, 4), (400, 0, 0))


@pytest.mark.parametrize("half", [0, 0.5])
def test_half_a_voxel_is_no_contradiction(half):
    attributes = {"voxel_size": [40, 4, 4], "offset": [0, 0, 0]}
    group = ngff([scaled("s0", [40, 4, 4], [40 * half, 4 * half, 4 * half])])
    assert read(attributes, group) == Frame((40, 4, 4))
    group = ngff([scaled("s0", [40, 4, 4], [20, 2, 2 + 4 * (half + 0.51)])])
    with pytest.raises(VolumeError, match="contradict"):
        read(attributes, group)


def test_sizes_in_32_bits_are_no_contradiction():
    attributes = {"voxel_size": [40, 4, 5.24], "resolution": [40, 4, 5.239999771118164]}
    assert read(attributes).voxel_size == (40, 4, 5.24)
    with pytest.raises(VolumeError, match="contradict"):
        read({"voxel_size": [40, 4, 5.24], "resolution": [40, 4, 5.25]})


def test_what_the_config_tells_wins_with_one_warning_that_names_both(caplog):
    attributes = {"voxel_size": [40, 4, 4], "offset": [80, 0, 0], "axis_names": [*"zyx"]}
    told = {"voxel_size": (41, 4, 4), "offset": (7, 0, 0), "axes": tuple("xyz")}
    for _ in range(2):
        found = resolved(attributes, told=told)
    assert found == (tuple("xyz"), Frame((41, 4, 4), (7, 0, 0)), True)
    (record,) = caplog.records
    for part in [
        "The config overrides the metadata of /data/x.zarr/s0",
        "axes ['x', 'y', 'z'] instead of ['z', 'y', 'x'] in",
        "voxel_size [41.0, 4.0, 4.0] instead of [40.0, 4.0, 4.0] in the attribute 'voxel_size'",
        "offset [7.0, 0.0, 0.0] instead of [80.0, 0.0, 0.0] in the attribute 'offset'",
    ]:
        assert part in record.getMessage()


def test_what_the_config_tells_and_the_file_says_too_is_no_warning(caplog):
    told = {"voxel_size": (40, 4, 4), "offset": (0, 0, 80), "axes": tuple("zyx")}
    read({"voxel_size": [40, 4, 4], "offset": [0, 0, 80], "axis_names": [*"zyx"]}, told=told)
    read({}, told=told)
    assert not caplog.records


def test_axes_that_the_config_tells_must_be_all():
    with pytest.raises(VolumeError, match=r"names \['z', 'y', 'x'\], but the array has 4 axes"):
        read({"voxel_size": [40, 4, 4]}, shape=(2, *SHAPE), told={"axes": tuple("zyx")})


def test_an_offset_alone_leaves_the_voxel_size_to_the_file():
    assert read({"voxel_size": [40, 4, 4]}, told={"offset": (1, 2, 3)}) == Frame((40, 4, 4), (1, 2, 3))
    with pytest.raises(VolumeError, match="does not say how large"):
        read({}, told={"offset": (1, 2, 3)})


# -- whatever is stored ----------------------------------------------------------------------

KEYS = [
    "voxel_size", "resolution", "offset", "units", "axis_names", "axes", "_ARRAY_DIMENSIONS",
    "dimension_names", "axistags", "transform", "multiscales", "ome", "pixelResolution",
    "downsamplingFactors", "scales", "multiScale", "element_size_um", "datasets", "path", "scale",
    "translate", "dimensions", "unit", "coordinateTransformations", "type", "translation", "name",
]
NUMBERS = st.integers(-3, 300) | st.floats(allow_nan=True, width=32)
WORDS = st.sampled_from(["z", "y", "x", "c", "t", "nm", "um", "s0", "pixel", "scale", "space", "", "?"])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
THREE = st.lists(NUMBERS, min_size=3, max_size=4) | st.permutations("zyx").map(list)
JSON = st.recursive(
    SCALARS | THREE,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)
ATTRIBUTES = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)


@settings(max_examples=600, deadline=None)
@given(own=ATTRIBUTES, group=ATTRIBUTES, n5=st.booleans(), channels=st.booleans())
def test_whatever_is_stored_there_is_an_answer_or_a_paragraph(own, group, n5, channels):
    shape = (2, *SHAPE) if channels else SHAPE
    try:
        found = resolved(own, group, shape=shape, n5=n5)
    except VolumeError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert "\n" not in message and "/data/x.zarr/s0" in message
        return
    assert set(found.axes) >= set("zyx") and len(found.axes) == len(shape)
    assert all(math.isfinite(v) and v > 0 for v in found.frame.voxel_size)
    assert all(math.isfinite(v) for v in found.frame.offset)


@settings(max_examples=100, deadline=None)
@given(own=ATTRIBUTES, group=ATTRIBUTES, n5=st.booleans())
def test_whatever_is_stored_what_the_config_tells_holds(own, group, n5):
    told = {"voxel_size": (40, 4.6, 4), "offset": (1, 2, -3), "axes": tuple("yzx")}
    found = resolved(own, group, n5=n5, told=told)
    assert found == (tuple("yzx"), Frame((40, 4.6, 4), (1, 2, -3)), True)

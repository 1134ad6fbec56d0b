"""Where the voxels lie, in every dialect of attributes that EM readers and writers have."""

import pytest

from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame
from em_blocks.volumes.attributes import frame_attributes, read_frame

FRAME = Frame((50, 4.6, 4.7), (100, 46, -94))


def read(attributes, group=None, **options):
    return read_frame(attributes, group or {}, name="s0", source="/data/x.zarr/s0", **options)


def close(frame, voxel_size, offset):
    return frame.voxel_size == pytest.approx(voxel_size) and frame.offset == pytest.approx(offset)


@pytest.mark.parametrize("channels", [False, True])
def test_what_we_write_we_read(channels):
    assert read(frame_attributes(FRAME, channels=channels)) == FRAME


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
    assert read(attributes) == Frame((40, 4, 4), (400, 40, 80))


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
    assert close(read({"transform": transform}), FRAME.voxel_size, FRAME.offset)


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
    assert close(read({}, group), (50, 4, 4), (-25, -2, -2))


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
        {"voxel_size": [40, 4, 4], "axis_names": ["x", "y", "z"]},
        {"voxel_size": [40, 4, 4], "axis_names": ["z", "y", "x", "c^"]},
        {"transform": {"scale": [40, 4, 4], "axes": ["t", "y", "x"]}},
        {"pixelResolution": {"unit": "nm"}},
    ],
)
def test_attributes_that_make_no_sense_are_an_error_with_the_path(attributes):
    with pytest.raises(VolumeError, match=r"/data/x.zarr/s0 .*cannot be understood"):
        read(attributes)


@pytest.mark.parametrize(
    "group",
    [
        ngff([scaled("s0", [50, 4, 4])], axes="xyz"),
        ngff([scaled("s0", [50, 4])]),
        ngff([scaled("s0", [50, 4, 4])], unit="parsec"),
    ],
)
def test_ngff_that_makes_no_sense_is_an_error(group):
    with pytest.raises(VolumeError, match="cannot be understood"):
        read({}, group)

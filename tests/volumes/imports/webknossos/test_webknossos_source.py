"""WEBKNOSSOS data sets: written by its own library, and by hand for what older ones look like.

``written_by_webknossos.zip`` holds one data set per format, as the Python library webknossos 4.3.3
writes it: voxels of 4.6 x 9.2 x 50 nm, a bounding box from (8, 16, 30), color with the magnifications
1 and 2-2-1, and segmentation with ids beyond 32 bits.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import wkw

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.webknossos.source import WebKnossosLayer

SHAPE = (6, 10, 9)
Z, Y, X = np.indices(SHAPE)
COLOR = ((7 * X + 31 * Y + 101 * Z) % 251).astype(np.uint8)
IDS = (X + 10 * Y + 100 * Z + 2**33).astype(np.uint64)
FILE = "datasource-properties.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of data sets, by format."""
    folder = tmp_path_factory.mktemp("webknossos")
    shutil.unpack_archive(Path(__file__).parent / "written_by_webknossos.zip", folder)
    return folder


@pytest.fixture
def copy(written, tmp_path):
    """One of them, to change."""
    def make(format):
        return Path(shutil.copytree(written / format, tmp_path / format))

    return make


def layer(path, name="color", **options):
    return WebKnossosLayer(type="webknossos", path=path, layer=name, **options)


def read_all(source):
    source.check()
    with source.open() as read:
        found = read(Box((0, 0, 0), source.header().shape))
    assert found.dtype == source.header().dtype
    return found


def refused(call):
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder, **keys):
    """Change keys of the first layer, or of the data set where it has them."""
    values = json.loads((folder / FILE).read_text())
    for key, value in keys.items():
        (values if key in values else values["dataLayers"][0])[key] = value
    (folder / FILE).write_text(json.dumps(values))


@pytest.mark.parametrize("format", ["wkw", "zarr", "zarr3"])
@pytest.mark.parametrize(("name", "expected"), [("color", COLOR), ("segmentation", IDS)])
def test_a_layer_is_read_with_its_place_in_every_format(written, format, name, expected):
    source = layer(written / format, name)
    header = source.header()
    assert (header.shape, header.dtype) == (SHAPE, expected.dtype)
    assert header.voxel_size == pytest.approx((50, 9.2, 4.6))
    assert header.offset == pytest.approx((30 * 50, 16 * 9.2, 8 * 4.6))
    np.testing.assert_array_equal(read_all(source), expected)
    with source.open() as read:
        np.testing.assert_array_equal(read(Box((1, 2, 3), (2, 3, 4))), expected[1:3, 2:5, 3:7])


@pytest.mark.parametrize("format", ["wkw", "zarr", "zarr3"])
def test_a_coarser_magnification_lies_at_the_same_place(written, format):
    source = layer(written / format, mag="2-2-1")
    header = source.header()
    assert header.voxel_size == pytest.approx((50, 18.4, 9.2))
    assert header.offset == pytest.approx((1500, 147.2, 36.8))
    np.testing.assert_array_equal(read_all(source), COLOR[:, ::2, ::2])


def test_the_config_wins_over_the_place_of_the_data_set(written):
    told = VolumeInput(path="a", voxel_size=(40, 4, 4))
    header = layer(written / "zarr").header(told)
    assert header.voxel_size == (40, 4, 4)
    assert header.offset == pytest.approx((1500, 147.2, 36.8))


def test_older_descriptions_name_scale_and_magnifications_otherwise(copy):
    folder = copy("wkw")
    older = [{"resolution": 1}, {"resolution": [2, 2, 1]}]
    change(folder, scale=[4.6, 9.2, 50.0], wkwResolutions=older, mags=None)
    assert layer(folder).header().voxel_size == pytest.approx((50, 9.2, 4.6))
    np.testing.assert_array_equal(read_all(layer(folder)), COLOR)
    np.testing.assert_array_equal(read_all(layer(folder, mag="2-2-1")), COLOR[:, ::2, ::2])


@pytest.mark.parametrize("format", ["wkw", "zarr"])
def test_the_only_layer_needs_no_name_and_the_usual_axes_none_either(copy, format):
    folder = copy(format)
    values = json.loads((folder / FILE).read_text())
    del values["dataLayers"][1], values["dataLayers"][0]["mags"][0]["axisOrder"]
    (folder / FILE).write_text(json.dumps(values))
    np.testing.assert_array_equal(read_all(layer(folder, None)), COLOR)


def test_other_units_are_converted(copy):
    folder = copy("zarr")
    change(folder, scale={"factor": [0.0046, 0.0092, 0.05], "unit": "micrometer"})
    assert layer(folder).header().voxel_size == pytest.approx((50, 9.2, 4.6))


def test_n5_is_read_by_the_order_of_its_axes(copy):
    folder = copy("zarr")
    volume = Volume.create(
        str(folder / "color/n5"), shape=(40, 32, 24), dtype="uint8", frame=Frame((50, 9.2, 4.6)),
        chunk_shape=(16, 16, 16), format="n5",
    )
    whole = np.zeros((40, 32, 24), np.uint8)
    whole[30:36, 16:26, 8:17] = COLOR
    volume.write(volume.box, whole)
    assert json.loads((folder / "color/n5/attributes.json").read_text())["dimensions"] == [24, 32, 40]
    mag = {"mag": [1, 1, 1], "path": "./color/n5", "axisOrder": {"x": 0, "y": 1, "z": 2}}
    change(folder, dataFormat="n5", mags=[mag])
    np.testing.assert_array_equal(read_all(layer(folder)), COLOR)


def test_colours_of_wkw_are_channels(copy):
    folder = copy("wkw")
    shutil.rmtree(folder / "color/1")
    colours = np.random.default_rng(0).integers(0, 255, (3, 9, 10, 6)).astype(np.uint8)
    with wkw.Dataset.create(str(folder / "color/1"), wkw.Header(np.uint8, num_channels=3)) as dataset:
        dataset.write((8, 16, 30), np.asfortranarray(colours))
    source = layer(folder)
    assert source.header().channels == 3
    np.testing.assert_array_equal(read_all(source), colours.transpose(0, 3, 2, 1))


def test_missing_files_of_wkw_are_zeros_as_in_webknossos(copy):
    folder = copy("wkw")
    change(folder, boundingBox={"topLeft": [0, 0, 0], "width": 17, "height": 26, "depth": 36})
    values = read_all(layer(folder))
    assert values.shape == (36, 26, 17)
    np.testing.assert_array_equal(values[30:, 16:, 8:], COLOR)
    assert values.sum() == COLOR.sum()


# -- what is refused -------------------------------------------------------------------


def test_layers_and_magnifications_that_there_are_not_are_named_with_those_there_are(written):
    several = refused(layer(written / "zarr", None).check)
    assert "there are color, segmentation. Name one by the key 'layer'" in several
    assert "no layer 'raw'" in refused(layer(written / "zarr", "raw").check)
    assert "no mag '4'; there are 1, 2-2-1" in refused(layer(written / "zarr", mag="4").check)
    assert "not of the form" in refused(layer(written / "zarr", mag="1-2").check)


def test_a_folder_that_is_no_data_set_and_a_broken_description_are_errors(copy, tmp_path):
    assert f"{tmp_path}/{FILE} cannot be read" in refused(layer(tmp_path).check)
    folder = copy("zarr")
    (folder / FILE).write_text('{"dataLayers": 3}')
    assert "cannot be understood" in refused(layer(folder).check)
    (folder / FILE).write_text("{")
    assert "cannot be read" in refused(layer(folder).check)


@pytest.mark.parametrize("format", ["wkw", "zarr", "zarr3"])
def test_an_array_that_is_missing_is_found_before_the_start(copy, format):
    folder = copy(format)
    shutil.rmtree(folder / "color/1")
    assert "color/1" in refused(layer(folder).check)


def test_a_bounding_box_beyond_the_array_is_refused(copy):
    folder = copy("zarr")
    change(folder, boundingBox={"topLeft": [8, 16, 30], "width": 99, "height": 10, "depth": 6})
    assert "ends at (36, 26, 107), but the array at (64, 32, 32)" in refused(layer(folder).check)


def test_axes_that_do_not_fit_and_other_formats_are_refused(copy):
    folder = copy("zarr3")
    mags = json.loads((folder / FILE).read_text())["dataLayers"][0]["mags"]
    change(folder, mags=[mags[0] | {"axisOrder": {"x": 0, "y": 1, "z": 2}}])
    assert "axisOrder" in refused(layer(folder).check)
    change(folder, mags=mags, dataFormat="neuroglancerPrecomputed")
    assert '"type": "volume"' in refused(layer(folder).check)


def test_a_damaged_file_is_an_error_when_it_is_read(copy):
    folder = copy("zarr3")
    for chunk in (folder / "color/1/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-4])
    with layer(folder).open() as read, pytest.raises(VolumeError, match="color/1 cannot be read"):
        read(Box((0, 0, 0), SHAPE))


def test_the_identity_is_that_of_the_values_in_every_format(written, copy):
    identities = {str(layer(written / format).identity()) for format in ("wkw", "zarr", "zarr3")}
    assert len(identities) == 1
    assert layer(written / "zarr", "segmentation").identity() != layer(written / "zarr").identity()

"""Volumes as layers of a WEBKNOSSOS data set: what its description says, and reading it back.

The Python library webknossos 4.3.3 read data sets like these, and its values were those of the volumes.
"""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, RefusedError, VolumeError
from em_blocks.export.webknossos import describe, write_description
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.webknossos.source import WebKnossosLayer
from em_blocks.volumes.multiscale import write_multiscales

SHAPE = (6, 10, 9)
FRAME = Frame((50.0, 9.2, 4.6), (-100.0, 46.0, 9.2))


def values(dtype="uint8", shape=SHAPE):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def write(path, array, frame=FRAME, format="zarr", **attributes):
    made = Volume.create(
        str(path), shape=array.shape[-3:], dtype=array.dtype, frame=frame, chunk_shape=(4, 8, 8),
        channels=len(array) if array.ndim == 4 else None, format=format, attributes=attributes,
    )
    made.write(made.box, array)
    return made


def pyramid(path, format="zarr"):
    coarse = Frame((50.0, 18.4, 9.2), FRAME.offset)
    levels = [
        write(path / "s0", values(), format=format),
        write(path / "s1", values()[:, ::2, ::2], coarse, format=format),
    ]
    write_multiscales(str(path), format, levels)
    return str(path)


def read_back(folder, layer, mag=None):
    source = WebKnossosLayer(type="webknossos", path=folder, layer=layer, mag=mag)
    source.check()
    header = source.header()
    with source.open() as read:
        return read(Box((0, 0, 0), header.shape)), Frame(header.voxel_size, header.offset)


@pytest.mark.parametrize("format", ["zarr", "zarr3"])
def test_a_pyramid_and_labels_come_back_from_where_they_are(tmp_path, format):
    brain = tmp_path / "brain.zarr"
    layers = {"raw": pyramid(brain / "em/raw", format), "ids": str(brain / "neurons")}
    write(brain / "neurons", values("uint64"), Frame((50, 18.4, 9.2), (0, 92, 0)), format)
    written = write_description(brain, describe(brain, layers))
    assert written == brain / "datasource-properties.json"
    for layer, mag, array, frame in [
        ("raw", None, values(), FRAME),
        ("raw", "2-2-1", values()[:, ::2, ::2], Frame((50, 18.4, 9.2), FRAME.offset)),
        ("ids", None, values("uint64"), Frame((50, 18.4, 9.2), (0, 92, 0))),
    ]:
        found, place = read_back(brain, layer, mag)
        np.testing.assert_array_equal(found, array)
        np.testing.assert_allclose(place.voxel_size, frame.voxel_size)
        np.testing.assert_allclose(place.offset, frame.offset, atol=1e-9)


def test_the_description_is_as_webknossos_has_it(tmp_path):
    brain = tmp_path / "brain.zarr"
    write(brain / "ids", values("uint32"), Frame((50, 18.4, 9.2)), labels=True)
    found = describe(brain, {"raw": pyramid(brain / "raw"), "ids": str(brain / "ids")})
    raw, ids = found["dataLayers"]
    assert found["scale"] == {"factor": [4.6, 9.2, 50.0], "unit": "nanometer"}
    assert found["id"]["name"] == "brain"
    order = {"z": 0, "y": 1, "x": 2}
    assert raw == {
        "name": "raw", "category": "color", "elementClass": "uint8", "numChannels": 1,
        "dataFormat": "zarr",
        "boundingBox": {"topLeft": [0, 0, 0], "width": 9, "height": 10, "depth": 6},
        "mags": [
            {"mag": [1, 1, 1], "path": "./raw/s0", "axisOrder": order},
            {"mag": [2, 2, 1], "path": "./raw/s1", "axisOrder": order},
        ],
        "coordinateTransformations": [
            {"type": "affine", "matrix": [[1, 0, 0, 2], [0, 1, 0, 5], [0, 0, 1, -2], [0, 0, 0, 1]]}
        ],
    }
    assert (ids["category"], ids["elementClass"]) == ("segmentation", "uint32")
    assert "coordinateTransformations" not in ids
    assert ids["boundingBox"] == {"topLeft": [0, 0, 0], "width": 18, "height": 20, "depth": 6}
    assert ids["mags"][0]["mag"] == [2, 2, 1]


def test_colours_are_a_layer_of_three_channels(tmp_path):
    write(tmp_path / "a.zarr/rgb", values(shape=(3, *SHAPE)))
    found = describe(tmp_path / "a.zarr", {"rgb": str(tmp_path / "a.zarr/rgb")})
    (layer,) = found["dataLayers"]
    assert (layer["elementClass"], layer["numChannels"]) == ("uint24", 3)
    assert layer["mags"][0]["axisOrder"] == {"c": 0, "z": 1, "y": 2, "x": 3}
    write_description(tmp_path / "a.zarr", found)
    np.testing.assert_array_equal(
        read_back(tmp_path / "a.zarr", "rgb")[0], values(shape=(3, *SHAPE))
    )


def test_what_webknossos_cannot_read_is_refused(tmp_path):
    brain = tmp_path / "brain.zarr"
    write(brain / "raw", values())
    cases = {
        "affinities": (values("float32", (2, *SHAPE)), FRAME, "2 channels of float32"),
        "half": (values("float16"), FRAME, "float16"),
        "thirds": (values(), Frame((150, 9.2, 4.6)), "magnifications of a data set are 1, 2, 4"),
        "odd": (values(), Frame((50, 9.2, 7)), "as data sets of their own"),
    }
    for name, (array, frame, reason) in cases.items():
        write(brain / name, array, frame)
        with pytest.raises(ConfigError, match=reason):
            describe(brain, {"raw": str(brain / "raw"), name: str(brain / name)})
    write(tmp_path / "b.n5/raw", values(), format="n5")
    with pytest.raises(ConfigError, match="is stored as n5"):
        describe(tmp_path / "b.n5", {"raw": str(tmp_path / "b.n5/raw")})
    with pytest.raises(ConfigError, match="does not lie in the folder"):
        describe(tmp_path / "b.n5", {"raw": str(brain / "raw")})
    with pytest.raises(ConfigError, match="object store"):
        describe(brain, {"raw": "s3://bucket/raw"})
    with pytest.raises(VolumeError, match="no volume"):
        describe(brain, {"raw": str(brain / "none")})


def test_another_description_is_not_replaced_unasked(tmp_path):
    brain = tmp_path / "brain.zarr"
    write(brain / "raw", values())
    write(brain / "other", values())
    first = describe(brain, {"raw": str(brain / "raw")})
    write_description(brain, first)
    write_description(brain, first)
    second = describe(brain, {"other": str(brain / "other")})
    with pytest.raises(RefusedError, match="--overwrite"):
        write_description(brain, second)
    write_description(brain, second, overwrite=True)
    assert json.loads((brain / "datasource-properties.json").read_text()) == second


def test_the_command_names_layers_and_finds_the_container(tmp_path):
    brain = tmp_path / "brain.zarr"
    write(brain / "em/raw", values())
    write(brain / "predicted/raw", values())
    call = ["export", "webknossos", str(brain / "em/raw"), f"predicted={brain}/predicted/raw", "--json"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said["output"] == str(brain / "datasource-properties.json")
    assert [layer["name"] for layer in said["dataLayers"]] == ["raw", "predicted"]
    twice = CliRunner().invoke(main, [*call[:3], str(brain / "predicted/raw")])
    assert twice.exit_code == 2
    assert "would both be the layer 'raw'" in twice.stderr.replace("\n", " ")


def test_a_layer_that_is_turned_by_its_data_set_is_not_ingested(tmp_path):
    brain = tmp_path / "brain.zarr"
    write(brain / "raw", values())
    found = describe(brain, {"raw": str(brain / "raw")})
    found["dataLayers"][0]["coordinateTransformations"][0]["matrix"][0][1] = 0.5
    write_description(brain, found)
    with pytest.raises(ConfigError, match="is transformed by its data set"):
        read_back(brain, "raw")

"""Networks of ONNX as setups: axes, sizes, context, channels and what of it is refused."""

import numpy as np
import pytest
import torch
from onnx import helper

from em_blocks.errors import CheckpointError, ConfigError, GeometryError
from em_blocks.models.config import SetupConfig
from em_blocks.models.setup import Setup
from foreign_networks import blurred, blurring, onnx_setup, save_graph

ANY = ("n", 1, "z", "y", "x")


@pytest.fixture
def build(tmp_path):
    """Build the network of a setup of `tmp_path`/model.onnx."""

    def made(**options):
        return Setup.from_folder(onnx_setup(tmp_path / "s", tmp_path / "model.onnx", **options)).build()

    return made


def raw(shape=(2, 6, 12, 10), seed=1):
    """Tiles (n, 1, z, y, x) of noise from -1 to 1."""
    values = np.random.default_rng(seed).random(shape, "float32") * 2 - 1
    return torch.from_numpy(values)[:, None]


def test_a_network_with_padding_gives_its_values_tile_by_tile(tmp_path, build):
    _, kernel = blurring(tmp_path / "model.onnx", padding=True)
    network, tiles = build(), raw()
    assert network.context == (0, 0, 0) and not hasattr(network, "tile_factor")
    found = network.predict(tiles)["affinities"].numpy()
    assert found.shape == (2, 2, 6, 12, 10) and found.dtype == np.float32
    for n in range(2):
        inside = blurred(tiles[n, 0].numpy(), kernel)
        np.testing.assert_allclose(found[n][:, 1:-1, 1:-1, 1:-1], inside, atol=1e-6)
    assert network.predict(tiles, ["other"]) == {}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_fixed_number_of_tiles_is_filled_up(tmp_path, build, batch):
    _, kernel = blurring(tmp_path / "model.onnx", padding=False, shape=(batch, 1, 6, 12, 10),
                         out=(batch, 2, 4, 10, 8))
    tiles = raw((5, 6, 12, 10))
    found = build(tile=(4, 10, 8)).predict(tiles)["affinities"].numpy()
    assert found.shape == (5, 2, 4, 10, 8)
    for n in range(5):
        np.testing.assert_allclose(found[n], blurred(tiles[n, 0].numpy(), kernel), atol=1e-6)


def test_the_context_follows_from_the_sizes_in_the_file(tmp_path, build):
    blurring(tmp_path / "model.onnx", padding=False, shape=(1, 1, 6, 12, 10), out=(1, 2, 4, 10, 8))
    assert build(tile=(4, 10, 8)).context == (1, 1, 1)
    with pytest.raises(ConfigError, match=r"context` is \(1, 1, 2\), but by the sizes.*\(1, 1, 1\)"):
        build(tile=(4, 10, 8), context=[1, 1, 2])


def test_the_context_of_a_network_for_any_size_is_stated_and_tried(tmp_path, build):
    blurring(tmp_path / "model.onnx", padding=False)
    with pytest.raises(GeometryError, match=r"Its `context` is \[1, 1, 1\]: write that"):
        build().check_tile((4, 8, 8))
    network = build(context=[1, 1, 1])
    network.check_tile((4, 8, 8))
    assert network.predict(raw((1, 6, 10, 10)))["affinities"].shape == (1, 2, 4, 8, 8)


def test_the_border_of_a_network_with_padding_is_cropped(tmp_path, build):
    _, kernel = blurring(tmp_path / "model.onnx", padding=True)
    network, tiles = build(crop=[1, 1, 1]), raw()
    assert network.context == (1, 1, 1)
    found = network.predict(tiles)["affinities"].numpy()
    np.testing.assert_allclose(found[1], blurred(tiles[1, 0].numpy(), kernel), atol=1e-6)


@pytest.mark.parametrize("tile", [(4, 10, 6), (3, 10, 8), (8, 20, 16)])
def test_a_tile_that_the_network_cannot_take_is_refused_with_one_that_it_can(tmp_path, build, tile):
    blurring(tmp_path / "model.onnx", padding=False, shape=(1, 1, 6, 12, 10), out=(1, 2, 4, 10, 8))
    network = build(tile=(4, 10, 8))
    network.check_tile((4, 10, 8))
    with pytest.raises(GeometryError, match=r"inputs of \(6, 12, 10\).*tile_shape \[4, 10, 8\]"):
        network.check_tile(tile)


def test_a_tile_that_fails_within_the_network_is_refused(tmp_path, build):
    # Halves and doubles: an odd input comes back one voxel smaller.
    nodes = [
        helper.make_node("MaxPool", ["raw"], ["low"], kernel_shape=[2] * 3, strides=[2] * 3),
        helper.make_node("Resize", ["low", "", "scales"], ["up"], mode="nearest"),
        helper.make_node("Add", ["raw", "up"], ["out"]),
    ]
    scales = [("scales", np.array([1, 1, 2, 2, 2], "float32"))]
    save_graph(tmp_path / "model.onnx", nodes, [("raw", ANY)], [("out", ANY)], scales)
    network = build(channels=1)
    network.check_tile((4, 8, 8))
    with pytest.raises(GeometryError, match=r"cannot compute an input of \(4, 8, 7\)"):
        network.check_tile((4, 8, 7))


def test_a_network_that_changes_the_resolution_is_refused(tmp_path, build):
    node = helper.make_node("MaxPool", ["raw"], ["out"], kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    save_graph(tmp_path / "model.onnx", [node], [("raw", ANY)], [("out", ANY)])
    with pytest.raises(GeometryError, match=r"\(4, 4, 4\).*it should be \(4, 8, 8\)"):
        build(channels=1).check_tile((4, 8, 8))
    save_graph(tmp_path / "model.onnx", [node], [("raw", (1, 1, 4, 9, 8))], [("out", (1, 1, 4, 4, 4))])
    with pytest.raises(ConfigError, match="not the input less as many voxels on both sides"):
        build(channels=1)


# -- axes and channels ------------------------------------------------------------------------


def section_network(path, axes="ncyx"):
    """Two channels, raw + 1 and raw * 2, of sections with channels first or last."""
    shape = {"n": "n", "c": 1, "y": "y", "x": "x"}
    nodes = [
        helper.make_node("Add", ["raw", "one"], ["a"]), helper.make_node("Mul", ["raw", "two"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["out"], axis=axes.index("c")),
    ]
    weights = [("one", np.float32([1])), ("two", np.float32([2]))]
    out = [2 if axis == "c" else shape[axis] for axis in axes]
    return save_graph(path, nodes, [("raw", [shape[a] for a in axes])], [("out", out)], weights)


@pytest.mark.parametrize("axes", ["ncyx", "nyxc", "xycn"])
def test_sections_are_passed_one_by_one_whatever_the_order_of_their_axes(tmp_path, build, axes):
    section_network(tmp_path / "model.onnx", axes)
    tiles = raw()
    found = build(**({} if axes == "ncyx" else {"axes": axes})).predict(tiles)["affinities"]
    expected = torch.cat([tiles + 1, tiles * 2], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_network_of_bare_volumes_needs_no_batch_and_no_channel(tmp_path, build):
    node = helper.make_node("Neg", ["raw"], ["out"])
    save_graph(tmp_path / "model.onnx", [node], [("raw", ("z", "y", "x"))], [("out", ("z", "y", "x"))])
    tiles = raw()
    torch.testing.assert_close(build(channels=1).predict(tiles)["affinities"], -tiles)


def test_a_head_takes_some_channels_of_a_named_output_and_an_activation(tmp_path, build):
    section_network(tmp_path / "model.onnx")
    tiles, chosen = raw(), {"name": "out", "channels": [1], "activation": "sigmoid"}
    found = build(channels=1, outputs={"affinities": chosen}).predict(tiles)["affinities"]
    torch.testing.assert_close(found, torch.sigmoid(tiles * 2))
    chosen["activation"] = "softmax"  # over all channels, then one is taken
    found = build(channels=1, outputs={"affinities": chosen}).predict(tiles)["affinities"]
    expected = torch.softmax(torch.cat([tiles + 1, tiles * 2], dim=1), dim=1)[:, 1:]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 3}, r"'affinities' has 3 channels, but the output 'out'.*has 2"),
        ({"outputs": {"affinities": {"channels": [0, 2]}}}, r"has 2, of which \[0, 2\] are taken"),
        ({"outputs": {"other": {}}}, r"no head 'other'.*outputs out, the setup the heads affinities"),
        ({"outputs": {"affinities": {"name": "prob"}}}, "no output 'prob'"),
        ({"axes": "nczyx"}, "has 4 axes, but `network.axes` is 'nczyx'"),
        ({"axes": "nncc"}, "each of n .batch."),
        ({"context": [-1, 0, 0]}, "network.context"),
    ],
)
def test_what_does_not_fit_the_file_is_refused(tmp_path, build, options, message):
    section_network(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_networks_of_several_inputs_or_of_colours_or_of_integers_are_refused(tmp_path, build):
    node = helper.make_node("Add", ["raw", "more"], ["out"])
    save_graph(tmp_path / "model.onnx", [node], [("raw", ANY), ("more", ANY)], [("out", ANY)])
    with pytest.raises(ConfigError, match=r"has 2 inputs \(raw, more\)"):
        build(channels=1)
    node = helper.make_node("Neg", ["raw"], ["out"])
    colours = (1, 3, "y", "x")
    save_graph(tmp_path / "model.onnx", [node], [("raw", colours)], [("out", colours)])
    with pytest.raises(ConfigError, match=r"wants 3 channels \(input 'raw', shape 1x3x\?x\?"):
        build(channels=3)


def test_a_graph_that_makes_a_tensor_no_memory_holds_is_refused_before_it_is_opened(
    tmp_path, build, monkeypatch
):
    import onnxruntime

    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0),
        helper.make_node("Add", ["raw", "most"], ["out"]),
    ]
    huge = [("huge", np.array([2**12, 2**12, 2**10], "int64"))]
    save_graph(tmp_path / "model.onnx", nodes, [("raw", ANY)], [("out", ANY)], huge)
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(ConfigError, match=r"makes a tensor of 64 GiB"):
        build(channels=1)


# -- as a setup -------------------------------------------------------------------------------


def test_the_file_is_the_only_checkpoint_and_part_of_the_fingerprint(tmp_path):
    file, _ = blurring(tmp_path / "model.onnx", padding=True)
    setup = Setup.from_folder(onnx_setup(tmp_path / "s", file))
    assert setup.checkpoint_path() == setup.checkpoint_path("latest") == file
    with pytest.raises(CheckpointError, match=r"'7'.*holds its only weights"):
        setup.checkpoint_path(7)
    first = setup.fingerprint(file)
    moved = tmp_path / "elsewhere" / "other.onnx"
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    assert Setup.from_folder(onnx_setup(tmp_path / "t", moved)).fingerprint(moved) == first
    cropped = onnx_setup(tmp_path / "t", moved, crop=[1, 1, 1])
    assert Setup.from_folder(cropped).fingerprint(moved) != first
    blurring(file, padding=True, seed=1)
    assert Setup.from_folder(tmp_path / "s").fingerprint(file) != first


def test_a_network_of_onnx_is_not_trained_here(tmp_path, setup_folder):
    blurring(tmp_path / "model.onnx", padding=True)
    values = Setup.from_folder(setup_folder).config.model_dump(mode="json", exclude_none=True)
    values["network"] = {"kind": "onnx", "file": str(tmp_path / "model.onnx")}
    with pytest.raises(ConfigError, match="'onnx' cannot be trained here"):
        SetupConfig.from_dict(values)

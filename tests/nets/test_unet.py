"""A U-Net whose voxels do not depend on their tile."""

import itertools

import numpy as np
import pytest
import torch

from em_blocks.errors import GeometryError
from em_blocks.nets.unet import Head, UNet

ISOTROPIC = {"kernels": [[(3, 3, 3)] * 2] * 3, "pooling": [(2, 2, 2)] * 2}
THICK = {
    "kernels": [[(1, 3, 3)] * 2, [(1, 3, 3), (3, 3, 3)], [(3, 3, 3)]],
    "pooling": [(1, 2, 2), (1, 3, 2)],
}


def network(geometry, seed=0):
    torch.manual_seed(seed)
    heads = {"affinities": Head(3, "sigmoid"), "distance": Head(1, "identity")}
    return UNet(features=[4, 6, 8][: len(geometry["kernels"])], heads=heads, **geometry).eval()


def tiled(net, raw, tile):
    """Outputs of all tiles of `raw`, put together; the last ones are cut to fit."""
    shape = [size - 2 * side for size, side in zip(raw.shape, net.context, strict=True)]
    result = np.full((3, *shape), np.nan, np.float32)
    steps = (range(0, size, step) for size, step in zip(shape, tile, strict=True))
    for begin in itertools.product(*steps):
        begin = [min(b, size - step) for b, size, step in zip(begin, shape, tile, strict=True)]
        ends = zip(begin, tile, net.context, strict=True)
        seen = raw[tuple(slice(b, b + step + 2 * side) for b, step, side in ends)]
        there = tuple(slice(b, b + step) for b, step in zip(begin, tile, strict=True))
        with torch.inference_mode():
            result[:, *there] = net.predict(seen[None, None])["affinities"][0].numpy()
    return result


@pytest.mark.parametrize("geometry", [ISOTROPIC, THICK], ids=["isotropic", "thick sections"])
def test_every_tiling_gives_the_voxels_of_one_forward_of_the_whole_array(geometry):
    net = network(geometry)
    whole = [3 * factor for factor in net.tile_factor]
    raw = torch.rand(net.shapes.input_shape(whole))
    expected = tiled(net, raw, whole)
    assert expected.std() > 1e-3, "a constant output would pass anything"
    for n in ((1, 1, 1), (2, 1, 3), (3, 2, 1)):
        tile = [k * factor for k, factor in zip(n, net.tile_factor, strict=True)]
        np.testing.assert_allclose(tiled(net, raw, tile), expected, rtol=0, atol=1e-5)


def test_a_tile_between_multiples_of_the_factor_gives_other_voxels():
    net = network(ISOTROPIC)
    raw = torch.rand(net.shapes.input_shape((12, 12, 12)))
    with torch.inference_mode():
        at_zero = net(raw[None, None, :-4, :-4, :-4])["affinities"]
        at_one = net(raw[None, None, 1:-3, :-4, :-4])["affinities"]
    assert (at_zero[:, :, 1:] - at_one[:, :, :-1]).abs().max() > 1e-4


def test_predict_applies_the_activation_of_each_head():
    net = network(ISOTROPIC)
    raw = torch.rand(1, 1, *net.shapes.input_shape((4, 4, 8)))
    with torch.inference_mode():
        logits, outputs = net(raw), net.predict(raw)
    torch.testing.assert_close(outputs["affinities"], torch.sigmoid(logits["affinities"]))
    torch.testing.assert_close(outputs["distance"], logits["distance"])
    assert outputs["affinities"].shape == (1, 3, 4, 4, 8)


def test_an_illegal_input_raises_before_anything_is_computed():
    with pytest.raises(GeometryError, match="Nearest legal inputs"):
        network(ISOTROPIC)(torch.zeros(1, 1, 45, 44, 44))


def test_features_and_levels_must_agree():
    with pytest.raises(GeometryError, match="3 entries"):
        UNet(features=[1, 2, 3], heads={}, kernels=[[(3, 3, 3)]] * 2, pooling=[(2, 2, 2)])


def test_only_the_heads_asked_for_are_computed():
    heads = {"affinities": Head(2, "sigmoid"), "lsd": Head(10, "sigmoid")}
    net = UNet(features=[2, 3], kernels=[[(1, 3, 3)]] * 2, pooling=[(1, 2, 2)], heads=heads)
    raw = torch.rand(1, 1, *net.shapes.input_shape((2, 4, 4)))
    whole, part = net.predict(raw), net.predict(raw, ["lsd"])
    assert (whole.keys(), part.keys()) == (heads.keys(), {"lsd"})
    assert torch.equal(whole["lsd"], part["lsd"])


# -- one decoder for each head ---------------------------------------------------------------


def two_decoders(geometry, seed=0):
    torch.manual_seed(seed)
    heads = {"affinities": Head(3, "sigmoid"), "distance": Head(1, "identity")}
    features = [4, 6, 8][: len(geometry["kernels"])]
    return UNet(features=features, heads=heads, decoders="separate", **geometry).eval()


@pytest.mark.parametrize("geometry", [ISOTROPIC, THICK], ids=["isotropic", "thick sections"])
def test_separate_decoders_have_the_shapes_and_tiles_of_a_shared_one(geometry):
    one, two = network(geometry), two_decoders(geometry)
    assert (one.context, one.tile_factor) == (two.context, two.tile_factor)
    whole = [2 * factor for factor in two.tile_factor]
    raw = torch.rand(two.shapes.input_shape(whole))
    with torch.inference_mode():
        shapes = [{name: v.shape for name, v in net(raw[None, None]).items()} for net in (one, two)]
    assert shapes[0] == shapes[1]
    expected = tiled(two, raw, whole)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(tiled(two, raw, two.tile_factor), expected, rtol=0, atol=1e-5)


def test_a_head_learns_with_the_encoder_and_its_own_decoder_alone():
    net = two_decoders(THICK)
    net(torch.rand(1, 1, *net.shapes.input_shape(net.tile_factor)))["distance"].sum().backward()
    learnt = {name for name, value in net.named_parameters() if value.grad is not None}
    parts = {tuple(name.split(".")[:2]) for name in learnt}
    owners = {"encoder" if part == "down" else owner for part, owner in parts}
    assert owners == {"encoder", "distance"}
    others = {name for name, _ in net.named_parameters()} - learnt
    assert others and all(".affinities." in name for name in others)
    shared = sum(value.numel() for value in network(THICK).parameters())
    assert sum(value.numel() for value in net.parameters()) > shared


def test_a_head_asked_for_alone_gives_what_it_gives_with_the_others():
    net = two_decoders(ISOTROPIC)
    raw = torch.rand(1, 1, *net.shapes.input_shape((4, 4, 8)))
    with torch.inference_mode():
        together = net.predict(raw)
        for name in together:
            alone = net.predict(raw, [name])
            assert alone.keys() == {name}
            assert torch.equal(alone[name], together[name])


@pytest.mark.parametrize("decoders", ["shared", "separate"])
def test_predictions_are_in_the_unit_of_the_head_and_logits_are_not(decoders):
    heads = {"vectors": Head(3, "identity", 100.0), "score": Head(1, "sigmoid")}
    torch.manual_seed(1)
    net = UNet(features=[2, 3], kernels=[[(1, 3, 3)]] * 2, pooling=[(1, 2, 2)], heads=heads,
               decoders=decoders)
    raw = torch.rand(1, 1, *net.shapes.input_shape((2, 4, 4)))
    with torch.inference_mode():
        logits, outputs = net(raw), net.predict(raw)
    assert logits["vectors"].abs().max() > 1e-3
    torch.testing.assert_close(outputs["vectors"], 100 * logits["vectors"])
    torch.testing.assert_close(outputs["score"], torch.sigmoid(logits["score"]))

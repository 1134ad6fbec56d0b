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

"""A residual U-Net whose voxels do not depend on their tile."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from em_blocks.nets.residual_unet import ResidualUNet
from em_blocks.nets.unet import Head, UNet

LEVEL = [(1, 3, 3), (3, 3, 3), (1, 3, 3)]
IN_SECTIONS = {
    "kernels": [[(1, 3, 3)], LEVEL, [(1, 3, 3), (3, 3, 3)]], "pooling": [(1, 2, 2)] * 2,
}
ISOTROPIC = {"kernels": [[(3, 3, 3)] * 2] * 2, "pooling": [(2, 2, 2)]}


def network(geometry, decoders="shared"):
    """A network of random weights, those of the blocks' last convolutions too."""
    torch.manual_seed(2)
    heads = {"foreground": Head(1, "sigmoid"), "distance": Head(2, "tanh")}
    features = [3, 5, 6][: len(geometry["kernels"])]
    net = ResidualUNet(
        features=features, heads=heads, decoders=decoders, rectifier="elu", **geometry
    ).eval()
    for values in net.parameters():
        if not values.any():
            torch.nn.init.normal_(values, std=0.2)
    return net


def predicted(net, raw):
    with torch.inference_mode():
        return np.concatenate([v.numpy() for v in net.predict(raw[None, None]).values()], axis=1)[0]


@pytest.mark.parametrize(
    ("geometry", "decoders"), [(IN_SECTIONS, "shared"), (ISOTROPIC, "separate")],
    ids=["in sections", "isotropic"],
)
def test_every_tiling_gives_the_voxels_of_one_forward_of_the_whole_array(geometry, decoders):
    net = network(geometry, decoders)
    raw = torch.rand(net.shapes.input_shape([2 * factor for factor in net.tile_factor]))
    whole = predicted(net, raw)
    assert whole.std() > 1e-3, "a constant output would pass anything"
    for n in ((1, 2, 1), (2, 1, 1)):
        tile = [k * factor for k, factor in zip(n, net.tile_factor, strict=True)]
        steps = (range(0, size, step) for size, step in zip(whole.shape[1:], tile, strict=True))
        for begin in itertools.product(*steps):
            ends = zip(begin, tile, net.context, strict=True)
            seen = raw[tuple(slice(b, b + step + 2 * side) for b, step, side in ends)]
            there = tuple(slice(b, b + step) for b, step in zip(begin, tile, strict=True))
            np.testing.assert_allclose(predicted(net, seen), whole[:, *there], rtol=0, atol=1e-5)


def test_sections_are_never_pooled():
    net = network(IN_SECTIONS)
    assert net.tile_factor == (1, 4, 4)
    assert net.context[0] == 1 + 1 + 1  # the three convolutions along z, at the size of sections


def test_context_and_tiles_are_those_of_the_plain_network_of_the_same_kernels():
    heads = {"foreground": Head(1, "sigmoid")}
    plain = UNet(features=[3, 5, 6], heads=heads, **IN_SECTIONS)
    residual = network(IN_SECTIONS)
    assert (residual.context, residual.tile_factor) == (plain.context, plain.tile_factor)


def test_a_block_is_added_to_the_middle_of_what_it_gets():
    level = network({"kernels": [LEVEL], "pooling": []}).down[0]
    features = torch.rand(1, 1, 7, 12, 11)
    entered = functional.elu(functional.conv3d(features, level.enter[0].weight, level.enter[0].bias))
    first, _, last = level.block
    block = functional.elu(functional.conv3d(entered, first.weight, first.bias))
    block = functional.conv3d(block, last.weight, last.bias)
    expected = functional.elu(block + entered[:, :, 1:-1, 2:-2, 2:-2])
    torch.testing.assert_close(level(features), expected)


def test_a_block_adds_nothing_at_first_and_learns():
    torch.manual_seed(0)
    level = ResidualUNet.level(1, 2, LEVEL, "elu")
    level.begin_as_identity()
    features = torch.rand(1, 1, 7, 12, 11)
    entered = functional.elu(level.enter(features))
    torch.testing.assert_close(level(features), entered[:, :, 1:-1, 2:-2, 2:-2])
    level(features).sum().backward()
    assert level.block[-1].weight.grad.abs().max() > 0


def test_skips_are_added():
    net = network(IN_SECTIONS)
    assert [up.enter[0].in_channels for up in net.up] == [3, 5]
    fine, coarse = torch.full((1, 1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1, 1), 5.0)
    assert net.join(fine, coarse).item() == 7.0


def test_no_layer_normalises_over_the_tile():
    assert not [m for m in network(IN_SECTIONS).modules() if "norm" in type(m).__name__.lower()]
    net = network(IN_SECTIONS).train()
    raw = torch.rand(net.shapes.input_shape((1, 4, 4)))
    both = torch.stack([raw, 1 - raw])[:, None]
    with torch.inference_mode():
        alone, together = net(both[:1]), net(both)
    torch.testing.assert_close(alone["distance"][0], together["distance"][0], rtol=1e-4, atol=1e-4)


def test_activations_of_a_deep_network_begin_at_the_scale_of_a_shallow_one():
    def spread(blocks):
        torch.manual_seed(3)
        level = [(1, 3, 3)] * (1 + 2 * blocks)
        net = ResidualUNet(
            features=[16], kernels=[level], pooling=[], rectifier="elu", heads={}
        ).eval()
        return net.down[0](torch.randn(1, 1, 2, 40, 40)).std().item()

    assert spread(8) == pytest.approx(spread(1), rel=0.5)

"""Networks that are worked out for data fit to them, to the memory and to each other."""

import numpy as np
import pytest
import torch

from em_blocks.models.network_plan import is_flat, plan_network
from em_blocks.nets.shapes import UNetShapes
from em_blocks.nets.unet import Head, UNet

SIZES = [(50, 4.6, 4.6), (8, 8, 8), (5, 5, 5), (25, 9, 9), (40, 4, 4), (16, 8, 8)]


def plan(size, box=(100, 500, 500), memory_gb=8.0, device="cpu"):
    return plan_network(size, box, memory_gb=memory_gb, device=device)


@pytest.mark.parametrize("size", SIZES)
def test_the_coarsest_voxels_are_nearly_cubes_and_thick_sections_are_not_mixed_early(size):
    made = plan(size, device="cuda")
    coarsest = np.multiply(size, np.prod(made.pooling, axis=0))
    assert coarsest.max() / coarsest.min() < 2
    effective = np.array(size, float)
    for level, kernels in enumerate(made.kernels):
        for kernel in kernels:
            for length, n in zip(effective, kernel, strict=True):
                assert n == 1 or length <= 2 * effective.min()
        if level < len(made.pooling):
            effective *= made.pooling[level]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_samples_and_tiles_are_what_the_network_can_give_and_hold_into_memory(size, device):
    for memory in (2.0, 24.0, 80.0):
        made = plan(size, memory_gb=memory, device=device)
        shapes = UNetShapes(made.kernels, made.pooling)
        shapes.check_output(made.output_shape), shapes.check_output(made.tile_shape)
        assert made.context == shapes.context
        smallest = made.output_shape == shapes.tile_factor
        assert made.sample_bytes <= memory * 1e9 / 2 or smallest


def test_samples_of_thick_sections_are_thin_and_none_is_larger_than_its_crop_needs():
    thin = plan((50, 4.6, 4.6), box=(12, 1024, 1024), device="cuda")
    assert thin.output_shape[0] == 4
    assert plan((50, 4.6, 4.6), box=(3, 1024, 1024), device="cuda").output_shape[0] == 1
    small = plan((8, 8, 8), box=(20, 33, 200))
    assert small.output_shape[0] <= 24 and small.output_shape[1] <= 40
    cube = plan((8, 8, 8)).output_shape
    assert len(set(cube)) == 1


def test_more_memory_of_a_gpu_gives_a_wider_network():
    widths = [plan((8, 8, 8), memory_gb=n, device="cuda").features[0] for n in (8, 24, 80)]
    assert widths == [12, 24, 32]
    assert plan((8, 8, 8), memory_gb=500).features == (12, 24, 48, 96)


@pytest.mark.parametrize(("size", "flat"), [
    ((50, 4.6, 4.6), True), ((9.3, 4.6, 4.6), True), ((9.2, 4.6, 4.6), False), ((8, 8, 8), False),
])
def test_without_a_gpu_thick_sections_are_seen_one_by_one(size, flat):
    made = plan(size, box=(12, 1024, 1024))
    assert (made.context[0] == 0) == flat == is_flat(size, "cpu")
    assert not is_flat(size, "cuda") and plan(size, device="cuda").context[0] > 0
    if flat:
        assert made.features == (8, 32, 64, 128) and made.context == (0, 46, 46)
        assert made.output_shape == (1, 256, 256)
        assert plan(size, box=(12, 100, 300)).output_shape == (1, 104, 256)


@pytest.mark.parametrize("size", [(50, 4.6, 4.6), (8, 8, 8)])
def test_the_multiplications_are_an_upper_bound_as_levels_shrink(size):
    made = plan(size, box=(8, 64, 64))
    network = UNet(
        features=made.features, kernels=made.kernels, pooling=made.pooling,
        heads={"a": Head(1, "sigmoid")},
    )
    found = []

    def count(layer, _, output):
        if layer.kernel_size != (1, 1, 1):
            found.append(output[0].numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.register_forward_hook(count)
    shape = [n + 2 * c for n, c in zip(made.output_shape, made.context, strict=True)]
    with torch.no_grad():
        network(torch.zeros(1, 1, *shape))
    assert 1 < made.multiplications / sum(found) < 4.2


def test_the_planned_network_computes_what_was_planned():
    made = plan((50, 4.6, 4.6), box=(12, 64, 64), device="cuda")
    network = UNet(
        features=made.features, kernels=made.kernels, pooling=made.pooling,
        heads={"a": Head(2, "sigmoid")},
    )
    factor = network.tile_factor
    shape = [n + 2 * c for n, c in zip(factor, network.context, strict=True)]
    assert network(torch.zeros(1, 1, *shape))["a"].shape == (1, 2, *factor)

"""Auxiliary outputs at a quarter of the resolution: where they lie, and that predictions lack them."""

import pytest
import torch

from em_blocks.errors import GeometryError
from em_blocks.nets.residual_unet import ResidualUNet
from em_blocks.nets.unet import Head, UNet

LEVEL = [(1, 3, 3)] * 2
GEOMETRIES = {
    "three levels": {"kernels": [LEVEL, LEVEL, [(3, 3, 3)]], "pooling": [(1, 2, 2)] * 2},
    "four levels": {
        "kernels": [[(3, 3, 3)], LEVEL, LEVEL, [(1, 3, 3)]],
        "pooling": [(1, 2, 2), (1, 2, 2), (2, 2, 2)],
    },
}
HEADS = {"foreground": Head(1, "sigmoid"), "distance": Head(2, "identity")}


def network(geometry, kind=UNet, auxiliary=True, **keys):
    torch.manual_seed(4)
    n = len(geometry["kernels"])
    return kind(features=[2, 3, 4, 5][:n], heads=HEADS, auxiliary=auxiliary, **geometry, **keys)


def passing_on(geometry):
    """A network whose convolutions pass their first channel on, and whose way up adds nothing."""
    net = UNet(
        features=[1] * len(geometry["kernels"]), heads={"foreground": Head(1, "sigmoid")},
        auxiliary=True, **geometry,
    )
    for name, values in net.named_parameters():
        torch.nn.init.zeros_(values)
        if values.ndim == 5 and not name.startswith("reduce"):
            middle = [n // 2 for n in values.shape[2:]]
            values.data[0, 0, middle[0], middle[1], middle[2]] = 1.0
    return net


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))
@pytest.mark.parametrize("position", [(0, 0, 0), (1, 5, 10), (1, 7, 15)])
def test_a_coarse_voxel_lies_over_the_voxels_that_it_stands_for(geometry, position):
    net = passing_on(geometry).train()
    shape = [2, 8, 16]
    raw = torch.zeros(1, 1, *net.shapes.input_shape(shape))
    at = [p + side for p, side in zip(position, net.context, strict=True)]
    raw[0, 0, at[0], at[1], at[2]] = 1.0
    with torch.no_grad():
        found = net(raw)
    fine, coarse = found["foreground"][0, 0], found["foreground/auxiliary"][0, 0]
    assert coarse.shape == fine.shape == tuple(shape)
    assert fine.nonzero().tolist() == [list(position)]
    bright = coarse.nonzero()
    assert list(position) in bright.tolist()
    sizes = (bright.amax(dim=0) - bright.amin(dim=0) + 1).tolist()
    inside = [0 < p < n - 1 for p, n in zip(position, shape, strict=True)]
    assert sizes[0] == 1, "z is not pooled down to the third level"
    assert all(n == 4 if free else n <= 4 for n, free in zip(sizes[1:], inside[1:], strict=True))
    assert len(bright) == sizes[1] * sizes[2]


@pytest.mark.parametrize("kind", [UNet, ResidualUNet])
@pytest.mark.parametrize("decoders", ["shared", "separate"])
def test_outputs_of_training_only(kind, decoders):
    net = network(GEOMETRIES["four levels"], kind, decoders=decoders)
    raw = torch.rand(1, 1, *net.shapes.input_shape((2, 8, 16)))
    found = net.train()(raw)
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "foreground": (1, 1, 2, 8, 16), "distance": (1, 2, 2, 8, 16),
        "foreground/auxiliary": (1, 1, 2, 8, 16), "distance/auxiliary": (1, 2, 2, 8, 16),
    }
    assert list(net.predict(raw)) == ["foreground", "distance"], "a snapshot during training too"
    assert list(net.eval()(raw)) == ["foreground", "distance"]
    assert net.train()(raw, ["distance"]).keys() == {"distance", "distance/auxiliary"}


def test_predictions_do_not_depend_on_it():
    with_, without = (network(GEOMETRIES["three levels"], auxiliary=a).eval() for a in (True, False))
    without.load_state_dict({k: v for k, v in with_.state_dict().items() if k in without.state_dict()})
    raw = torch.rand(1, 1, *with_.shapes.input_shape((1, 8, 8)))
    with torch.inference_mode():
        for name, values in without.predict(raw).items():
            assert torch.equal(with_.predict(raw)[name], values)


def test_its_loss_teaches_the_coarse_levels_and_no_finer_way_up():
    net = network(GEOMETRIES["four levels"]).train()
    found = net(torch.rand(1, 1, *net.shapes.input_shape((2, 8, 8))))
    found["foreground/auxiliary"].sum().backward()
    learnt = {".".join(n.split(".")[:2]) for n, v in net.named_parameters() if v.grad is not None}
    assert learnt == {
        "down.0", "down.1", "down.2", "down.3", "reduce.2", "up.2", "auxiliary.foreground",
    }


def test_a_network_without_a_third_level_cannot_have_it():
    with pytest.raises(GeometryError, match="has 2 levels, but `auxiliary`"):
        network({"kernels": [LEVEL] * 2, "pooling": [(1, 2, 2)]})

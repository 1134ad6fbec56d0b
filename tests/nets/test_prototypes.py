"""Nearest prototypes: their probability, what they learn from, and that predictions leave them alone."""

import copy
import math

import pytest
import torch

from em_blocks.models.initial import load_initial_weights
from em_blocks.nets.prototypes import MOMENTUM, Nearest, Prototypes
from em_blocks.nets.unet import Head, UNet

SURE = 30.0
"""A logit of which the sigmoid is 0 or 1."""


def with_prototypes(background, foreground, weights=(0.7, 0.3)):
    layer = Prototypes(len(background)).eval()
    layer.weights = torch.tensor(weights)
    layer.sums = torch.tensor([background, foreground]) * layer.weights[:, None]
    return layer


def voxels(rows):
    """Embedding (1, e, 1, 1, v) of a row for every voxel."""
    return torch.tensor(rows).T[None, :, None, None]


def test_the_probability_is_the_sigmoid_of_the_difference_of_the_distances():
    layer = with_prototypes([0.0, 0.0], [3.0, 4.0])
    logits = layer(voxels([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0], [1.5, 2.0]]))
    assert logits.shape == (1, 1, 1, 1, 4)
    assert logits.flatten().tolist() == pytest.approx([-5.0, 5.0, 3.0 - 4.0, 0.0], abs=1e-6)
    d_b, d_f = 3.0, 4.0
    nearest = math.exp(-d_f) / (math.exp(-d_f) + math.exp(-d_b))
    assert torch.sigmoid(logits)[0, 0, 0, 0, 2].item() == pytest.approx(nearest)


def test_prototypes_are_means_weighted_by_the_prior():
    layer = Prototypes(1).train()
    prior = torch.logit(torch.tensor([0.9, 0.5, 0.2])).reshape(1, 1, 1, 1, 3)
    layer(voxels([[1.0], [2.0], [6.0]]), prior)
    means = layer.sums[:, 0] / layer.weights
    foreground = (0.9 * 1 + 0.5 * 2 + 0.2 * 6) / 1.6
    background = (0.1 * 1 + 0.5 * 2 + 0.8 * 6) / 1.4
    assert means.tolist() == pytest.approx([background, foreground], rel=1e-5)


def test_batches_run_into_the_prototypes_by_what_they_hold_of_each_class():
    layer = Prototypes(1).train()
    prior = torch.tensor([SURE, -SURE]).reshape(1, 1, 1, 1, 2)
    layer(voxels([[4.0], [0.0]]), prior)
    layer(voxels([[6.0], [1.0]]), prior)
    old, new = 1 - MOMENTUM, 1.0  # the first batch has faded by the share of the second
    expected = [(0 * old + 1 * new) / (old + new), (4 * old + 6 * new) / (old + new)]
    means = layer.sums[:, 0] / layer.weights
    assert means.tolist() == pytest.approx(expected, rel=1e-5)
    before = means[1].item()
    layer(voxels([[7.0], [7.0]]), torch.full((1, 1, 1, 1, 2), -SURE))
    assert (layer.sums[1, 0] / layer.weights[1]).item() == pytest.approx(before, rel=1e-5)


def test_the_gradient_reaches_the_embedding_and_the_prior():
    layer = with_prototypes([0.0, 0.0], [1.0, 1.0]).train()
    torch.manual_seed(0)
    embedding = torch.randn(1, 2, 1, 3, 3, requires_grad=True)
    prior = torch.randn(1, 1, 1, 3, 3, requires_grad=True)
    layer(embedding, prior).square().sum().backward()
    assert embedding.grad.abs().min() > 0 and prior.grad.abs().min() > 0
    assert not layer.sums.requires_grad, "what is kept is of no graph"


def test_the_gradient_is_that_of_finite_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    layer = with_prototypes([0.0, 0.2], [1.0, 1.0]).double().train()
    torch.manual_seed(1)
    arguments = [torch.randn(2, c, 1, 2, 3, dtype=torch.float64, requires_grad=True) for c in (2, 1)]
    assert torch.autograd.gradcheck(lambda *values: copy.deepcopy(layer)(*values), arguments)


@pytest.mark.parametrize("how", ["evaluation", "snapshot", "without prior"])
def test_predictions_leave_the_prototypes_alone(how):
    layer = with_prototypes([0.0, 0.0], [1.0, 1.0]).train(how != "evaluation")
    before = layer.sums.clone(), layer.weights.clone()
    embedding, prior = torch.randn(1, 2, 1, 3, 3), torch.randn(1, 1, 1, 3, 3)
    with torch.set_grad_enabled(how != "snapshot"):
        found = layer(embedding, None if how == "without prior" else prior)
    assert torch.equal(layer.sums, before[0]) and torch.equal(layer.weights, before[1])
    torch.testing.assert_close(found, layer.eval()(embedding))


def test_a_batch_that_is_no_number_leaves_the_prototypes_alone():
    layer = with_prototypes([0.0], [1.0]).train()
    before = layer.sums.clone()
    layer(voxels([[float("nan")], [1.0]]), torch.zeros(1, 1, 1, 1, 2))
    assert torch.equal(layer.sums, before)


def test_before_any_training_nothing_is_known():
    assert torch.equal(Prototypes(3)(torch.randn(1, 3, 1, 2, 2)), torch.zeros(1, 1, 1, 2, 2))


# -- in a network ------------------------------------------------------------------------------

HEADS = {
    "nearest": Head(1, "sigmoid", nearest=Nearest(6, "foreground")), "foreground": Head(1, "sigmoid"),
}
GEOMETRY = {"features": [4, 5], "kernels": [[(1, 3, 3)]] * 2, "pooling": [(1, 2, 2)]}


def network(heads=HEADS, seed=0):
    torch.manual_seed(seed)
    return UNet(heads=heads, **GEOMETRY)


def trained(net, steps=1):
    for _ in range(steps):
        raw = torch.randn(1, 1, *net.shapes.input_shape((2, 8, 8)))
        net.train()(raw)["nearest"].sum().backward()
    return net


def test_both_heads_learn_from_it():
    net = trained(network(), steps=2)
    assert net.heads["nearest"].weight.grad.abs().max() > 0
    assert net.heads["foreground"].weight.grad.abs().max() > 0


def test_a_tile_gives_what_the_whole_array_gives():
    net = trained(network(), steps=3).eval()
    raw = torch.rand(1, 1, *net.shapes.input_shape((2, 8, 8)))
    with torch.inference_mode():
        whole = net.predict(raw)["nearest"]
        for y in (0, 4):
            tile = net.predict(raw[:, :, :, y : raw.shape[3] - 4 + y])["nearest"]
            torch.testing.assert_close(tile, whole[:, :, :, y : y + 4], rtol=0, atol=1e-6)
        alone = net.predict(raw, ["nearest"])
    assert whole.std() > 1e-4
    assert list(alone) == ["nearest"] and torch.equal(alone["nearest"], whole)


def test_prototypes_are_kept_with_the_weights(tmp_path):
    from safetensors.torch import save_file

    net = trained(network(), steps=3).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    other = network(seed=1).eval()
    found = load_initial_weights(other, tmp_path / "w.safetensors")
    kept, loaded = (n.prototypes["nearest"].sums for n in (net, other))
    assert found.new == [] and torch.equal(loaded, kept)
    plain = network({"foreground": Head(1, "sigmoid")})
    assert load_initial_weights(plain, tmp_path / "w.safetensors").unused == ["nearest"]

"""One step of training, and what guards it."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from em_blocks.errors import RunFailedError
from em_blocks.models.config import TrainingConfig
from em_blocks.training.trainer import MAX_BAD_STEPS, Trainer, learning_rate
from tiny_setup import tiny_config


class Line(nn.Module):
    """logits = weight * raw + bias."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)

    def forward(self, raw):
        return {"line": self.layer(raw)}

    def predict(self, raw):
        return {name: logits.sigmoid() for name, logits in self.forward(raw).items()}


def trainer(**changes):
    config = TrainingConfig.from_dict(
        tiny_config()["training"] | {"weight_decay": 0, "warmup": 0} | changes
    )
    torch.manual_seed(0)

    def objective(outputs, batch, iteration):
        return {"line": (outputs["line"].float() - batch["wanted"]).square().mean()}

    return Trainer(Line(), objective, config)


def batch(seed=0):
    raw = np.random.default_rng(seed).normal(size=(1, 1, 4, 4, 4)).astype(np.float32)
    return {"raw": raw, "wanted": 3 * raw + 1}


def test_training_reduces_the_loss():
    train = trainer(learning_rate=0.05, iterations=300)
    losses = [train.step(i, batch(i)).loss for i in range(300)]
    assert losses[-1] < 0.05 * losses[0]


def test_the_average_follows_the_weights():
    train = trainer(learning_rate=0.05, iterations=300)
    for i in range(300):
        train.step(i, batch(i))
    for mean, value in zip(train.average.parameters(), train.network.parameters(), strict=True):
        assert not torch.equal(mean, value)
        torch.testing.assert_close(mean, value, atol=0.5, rtol=0.3)


def test_a_step_with_nan_leaves_the_weights_alone():
    train = trainer()
    train.step(0, batch())
    before = [p.clone() for p in (*train.network.parameters(), *train.average.parameters())]
    bad = batch()
    bad["raw"][0, 0, 0, 0, 0] = np.nan
    assert train.step(1, bad).skipped
    after = [*train.network.parameters(), *train.average.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not train.step(2, batch()).skipped


def test_nan_in_every_step_ends_the_training_with_advice():
    train = trainer()
    bad = batch()
    bad["raw"][:] = np.inf
    for i in range(MAX_BAD_STEPS - 1):
        train.step(i, bad)
    with pytest.raises(RunFailedError, match="learning_rate"):
        train.step(MAX_BAD_STEPS, bad)


def test_the_gradient_is_clipped():
    # Clipped so far that Adam's epsilon dominates: the weights hardly move.
    clipped, free = trainer(gradient_clip=1e-12), trainer(gradient_clip=1e3)
    before = clipped.network.layer.weight.clone()
    clipped.step(0, batch())
    free.step(0, batch())
    moved = (clipped.network.layer.weight - before).abs().max()
    assert moved < 0.01 * (free.network.layer.weight - before).abs().max()


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth():
    config = trainer(warmup=10, iterations=110, learning_rate=1.0).config
    rates = [learning_rate(config, i) for i in range(110)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert math.isclose(learning_rate(config, 110), 0.01)


def test_a_loaded_state_goes_on_as_if_never_stopped():
    one, two = trainer(iterations=10), trainer(iterations=10)
    for i in range(4):
        one.step(i, batch(i))
    two.load_state(copy.deepcopy(one.state()))
    for i in range(4, 8):
        one.step(i, batch(i))
        two.step(i, batch(i))
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_objective_is_told_the_iteration_and_what_it_learns_from():
    seen = []

    def objective(outputs, batch, iteration):
        seen.append((iteration, batch.keys()))
        return {"line": outputs["line"].float().square().mean()}

    train = trainer()
    train.objective = objective
    train.step(7, batch())
    assert seen == [(7, {"raw", "wanted"})]


def test_predicting_changes_neither_weights_nor_random_numbers_nor_later_steps():
    one, two = trainer(), trainer()
    for i in range(3):
        one.step(i, batch(i))
        state = torch.get_rng_state()
        predicted = two.predict(batch(9)["raw"])["line"]
        assert torch.equal(torch.get_rng_state(), state)
        two.step(i, batch(i))
    assert predicted.shape == (1, 1, 4, 4, 4) and predicted.dtype == np.float32
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        assert torch.equal(a, b)


class Normed(nn.Module):
    """A network with running statistics."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(2), nn.Linear(2, 1)

    def forward(self, points):
        return {"height": self.layer(self.norm(points))}


class Points:
    """A source of batches without any volume: a plane above points, drawn by numpy alone."""

    def batches(self, first, last):
        for iteration in range(first, last):
            points = np.random.default_rng(iteration).normal(3, 2, (32, 2)).astype(np.float32)
            yield {"raw": points, "height": points @ np.float32([[1], [-2]]) + 5}


def learn_points(last, network=None, first=0):
    def objective(outputs, batch, iteration):
        return {"height": (outputs["height"] - batch["height"]).square().mean()}

    config = TrainingConfig.from_dict(
        tiny_config()["training"] | {"learning_rate": 0.05, "warmup": 0, "iterations": 400}
    )
    torch.manual_seed(0)
    train, source = Trainer(network or Normed(), objective, config), Points()
    steps = [train.step(first + i, batch) for i, batch in enumerate(source.batches(first, last))]
    return train, steps


def test_the_loop_trains_whatever_a_source_yields():
    _, steps = learn_points(400)
    assert steps[-1].loss < 0.1 * steps[0].loss  # of random batches, normalised one by one
    assert steps[0].per_head.keys() == {"height"}


def test_running_statistics_are_averaged_as_weights_are():
    train, _ = learn_points(300)
    mean, now = train.average.norm, train.network.norm
    assert mean.num_batches_tracked == now.num_batches_tracked == 300
    assert not torch.equal(mean.running_mean, now.running_mean)
    torch.testing.assert_close(mean.running_mean, torch.full((2,), 3.0), atol=0.3, rtol=0)
    torch.testing.assert_close(mean.running_var, torch.full((2,), 4.0), atol=0.8, rtol=0)
    [batch] = Points().batches(999, 1000)
    found = train.average(torch.from_numpy(batch["raw"]))["height"].numpy()
    assert np.square(found - batch["height"]).mean() < 0.3  # better than with those of one batch


# -- frozen layers and half precision -----------------------------------------------------------


def test_frozen_parameters_stay_and_the_others_learn():
    train = trainer(freeze=["layer.bias"], learning_rate=0.05)
    assert train.frozen == ["layer.bias"]
    before = {name: values.clone() for name, values in train.network.named_parameters()}
    for i in range(20):
        train.step(i, batch(i))
    for name, values in train.network.named_parameters():
        assert torch.equal(values, before[name]) == (name == "layer.bias")
    assert torch.equal(train.average.layer.bias, before["layer.bias"])


def test_a_frozen_training_continues_from_its_state_as_if_never_stopped():
    one, two = (trainer(freeze=["layer.bias"]) for _ in range(2))
    for i in range(4):
        one.step(i, batch(i))
    for i in range(2):
        two.step(i, batch(i))
    three = trainer(freeze=["layer.bias"])
    three.load_state(copy.deepcopy(two.state()))
    for i in range(2, 4):
        three.step(i, batch(i))
    assert torch.equal(one.network.layer.weight, three.network.layer.weight)


def test_losses_in_half_precision_are_scaled_and_their_gradients_are_not():
    half, full = trainer(precision="fp16"), trainer()
    assert half.scaler.is_enabled() and not full.scaler.is_enabled()
    steps = [train.step(0, batch()) for train in (half, full)]
    assert steps[0].gradient_norm == pytest.approx(steps[1].gradient_norm, rel=1e-2)
    assert "scaler" not in full.state(), "states of the other precisions are as they were"


def test_a_step_that_overflows_in_half_precision_lowers_the_scale_and_state_keeps_it():
    train = trainer(precision="fp16")
    train.step(0, batch())
    before, scale = train.network.layer.weight.clone(), train.scaler.get_scale()
    bad = batch()
    bad["raw"][0, 0, 0, 0, 0] = np.inf
    assert train.step(1, bad).skipped
    assert torch.equal(train.network.layer.weight, before)
    assert train.scaler.get_scale() == scale / 2
    other = trainer(precision="fp16")
    other.load_state(copy.deepcopy(train.state()))
    assert other.scaler.get_scale() == scale / 2

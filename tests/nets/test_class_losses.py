"""Losses of classes against a slow reference, voxel by voxel, and their laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from em_blocks.errors import ConfigError
from em_blocks.nets.class_losses import BalancedCE, CEDice, certain
from em_blocks.nets.unet import ACTIVATIONS

SHAPE = (2, 2, 3, 4)  # n, z, y, x
CLIP = (0.02, 0.9)


def exclusive(seed, channels=3, ambiguous=0.3, unknown=0.2):
    """Logits, possible channels and mask; ambiguous voxels may be background or some other."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (SHAPE[0], channels, *SHAPE[1:]))
    own = rng.choice(channels, SHAPE, p=[0.7, *[0.3 / (channels - 1)] * (channels - 1)])
    target = np.moveaxis(np.eye(channels)[own], -1, 1)
    open_to = (rng.random(target.shape) < 0.6) & (rng.random(SHAPE)[:, None] < ambiguous)
    open_to[:, -1] = False
    open_to[:, 0] |= open_to.any(1)
    target = np.where(open_to.any(1, keepdims=True), open_to, target)
    return logits, target * 1.0, (rng.random(SHAPE) > unknown) * 1.0


def independent(seed, channels=3):
    rng = np.random.default_rng(seed)
    shape = (SHAPE[0], channels, *SHAPE[1:])
    logits, target = rng.normal(0, 3, shape), (rng.random(shape) < 0.2) * 1.0
    return logits, target, (rng.random(shape) > 0.3) * 1.0


def loss_of(loss, logits, target, mask):
    activate = ACTIVATIONS["sigmoid" if mask.ndim == logits.ndim else "softmax"]
    return float(loss(*map(torch.from_numpy, (logits, target, mask)), activate=activate))


def exclusive_reference(logits, target, mask, factors):
    channels, classes, errors = logits.shape[1], [], []
    for n, *zyx in np.argwhere(mask):
        voxel = (n, slice(None), *zyx)
        probability = np.exp(logits[voxel]) / np.exp(logits[voxel]).sum()
        errors.append(-math.log(sum(probability[target[voxel] > 0])))
        classes.append(int(np.flatnonzero(target[voxel])[0]))
    total = weights = 0.0
    for error, c in zip(errors, classes, strict=True):
        share = min(max(classes.count(c) / len(classes), CLIP[0]), CLIP[1])
        total += factors[c] * error / (channels * share)
        weights += 1 / (channels * share)
    return total / weights


def independent_reference(logits, target, mask, factors):
    means = []
    for c, factor in enumerate(factors):
        known = mask[:, c] > 0
        if not known.any():
            continue
        p, t = 1 / (1 + np.exp(-logits[:, c][known])), target[:, c][known] > 0
        weight = np.where(
            t, 0.5 / np.clip(t.mean(), *CLIP), 0.5 / np.clip((~t).mean(), *CLIP)
        )
        means.append(factor * (-np.log(np.where(t, p, 1 - p)) * weight).sum() / weight.sum())
    return np.mean(means)


def soft_dice(logits, target, mask, smooth):
    """Of probabilities, channel by channel, over the voxels where a channel is certain."""
    if mask.ndim == logits.ndim:
        p, known = 1 / (1 + np.exp(-logits)), mask
    else:
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        single = target.sum(1, keepdims=True) == 1
        known = mask[:, None] * (single | (target == 0))
    p, t = p * known, target * known
    losses = [
        1 - (2 * (p[:, c] * t[:, c]).sum() + smooth) / (p[:, c].sum() + t[:, c].sum() + smooth)
        for c in range(p.shape[1])
    ]
    return np.mean(losses)


CASES = [(exclusive, exclusive_reference), (independent, independent_reference)]


@pytest.mark.parametrize(("arrays", "reference"), CASES)
@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_both_losses_are_the_reference(arrays, reference, factors):
    for seed in range(4):
        values = arrays(seed)
        wanted = reference(*values, factors)
        found = loss_of(BalancedCE(clip=CLIP, class_weights=factors), *values)
        assert found == pytest.approx(wanted, rel=1e-5)
        both = CEDice(clip=CLIP, class_weights=factors, dice=0.7, smooth=2)
        wanted += 0.7 * soft_dice(*values, smooth=2)
        assert loss_of(both, *values) == pytest.approx(wanted, rel=1e-5)


def test_a_voxel_that_may_be_of_two_classes_has_the_likelihood_of_both():
    logits = torch.log(torch.tensor([0.5, 0.2, 0.3])).reshape(1, 3, 1, 1, 1)
    target = torch.tensor([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1, 1)
    found = BalancedCE()(logits, target, torch.ones(1, 1, 1, 1))
    assert float(found) == pytest.approx(-math.log(0.8), rel=1e-6)


def test_both_classes_weigh_the_same_down_to_the_smallest_share():
    target = torch.zeros(1, 1, 1, 1, 1000)
    target[..., :10] = 1
    right_on_the_rest = torch.full_like(target, -3.0)
    mask = torch.ones_like(target)
    errors = [math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))]
    found = BalancedCE(clip=(0.01, 0.99))(right_on_the_rest, target, mask)
    assert float(found) == pytest.approx(sum(errors) / 2, rel=1e-5)
    clipped = BalancedCE(clip=(0.1, 0.99))(right_on_the_rest, target, mask)
    rare = 10 / 0.1
    assert float(clipped) == pytest.approx(
        (1000 * errors[0] + rare * errors[1]) / (1000 + rare), rel=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([exclusive, independent]), st.booleans())
def test_unknown_voxels_never_change_the_loss_or_its_gradient(seed, arrays, dice):
    loss = CEDice() if dice else BalancedCE()
    logits, target, mask = arrays(seed)
    rng = np.random.default_rng(seed)
    hidden = np.broadcast_to(mask if mask.ndim == 5 else mask[:, None], target.shape) == 0
    other = np.where(hidden, rng.normal(0, 50, logits.shape), logits)
    anything = np.where(hidden, rng.integers(0, 2, target.shape), target)
    assert loss_of(loss, other, anything * 1.0, mask) == loss_of(loss, logits, target, mask)
    tensor = torch.from_numpy(other).requires_grad_()
    activate = ACTIVATIONS["sigmoid" if mask.ndim == 5 else "softmax"]
    loss(tensor, torch.from_numpy(target), torch.from_numpy(mask), activate=activate).backward()
    gradient = tensor.grad.numpy()
    assert np.isfinite(gradient).all() and not gradient[hidden].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)), st.booleans())
def test_the_order_of_classes_does_not_matter(seed, order, dice):
    loss = CEDice() if dice else BalancedCE()
    logits, target, mask = independent(seed)
    found = loss_of(loss, logits[:, order], target[:, order], mask[:, order])
    assert found == pytest.approx(loss_of(loss, logits, target, mask), rel=1e-5)
    logits, target, mask = exclusive(seed, channels=4)
    order = [0, *(number + 1 for number in order)]  # the background stays the first
    found = loss_of(loss, logits[:, order], target[:, order], mask)
    assert found == pytest.approx(loss_of(loss, logits, target, mask), rel=1e-5)


@pytest.mark.parametrize("kind", [BalancedCE, CEDice])
@pytest.mark.parametrize("arrays", [exclusive, independent])
def test_a_batch_without_a_known_voxel_has_loss_and_gradient_0(kind, arrays):
    logits, target, mask = map(torch.from_numpy, arrays(1))
    logits.requires_grad_()
    activate = ACTIVATIONS["sigmoid" if mask.ndim == 5 else "softmax"]
    loss = kind()(logits, target, torch.zeros_like(mask), activate=activate)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_channel_without_a_known_voxel_is_left_out_of_the_mean():
    logits, target, mask = independent(5)
    alone = loss_of(BalancedCE(), logits[:, :1], target[:, :1], mask[:, :1])
    mask[:, 1:] = 0
    assert loss_of(BalancedCE(), logits, target, mask) == pytest.approx(alone, rel=1e-6)


def test_certain_voxels_are_those_of_one_class_and_those_that_a_class_is_ruled_out_in():
    target = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1.0]]).reshape(1, 3, 1, 1, 4)
    known = certain(target, torch.tensor([1, 1, 1, 0]).reshape(1, 1, 1, 4))
    assert known.mask.reshape(3, 4).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0]]
    assert known.target.reshape(3, 4).tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_shares_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"give the smaller share first"):
        BalancedCE.from_dict({"kind": "balanced_ce", "clip": [0.9, 0.1]})

"""Losses against slow references."""

import numpy as np
import pytest
import torch

from em_blocks.nets.losses import balanced_bce, masked_mse


def reference(logits, target, mask, rarest=0.05):
    """Channel by channel: both classes weigh half, none more than its clipped share allows."""
    means = []
    for c in range(logits.shape[1]):
        known = mask[:, c].astype(bool)
        if not known.any():
            continue
        x, t = logits[:, c][known], target[:, c][known]
        p = 1 / (1 + np.exp(-x))
        loss = -(t * np.log(p) + (1 - t) * np.log(1 - p))
        share = np.clip(t.mean(), rarest, 1 - rarest)
        weight = np.where(t == 1, 0.5 / share, 0.5 / (1 - share))
        means.append((loss * weight).sum() / weight.sum())
    return np.mean(means)


def arrays(seed, share):
    rng = np.random.default_rng(seed)
    shape = (2, 3, 4, 5, 6)
    return (
        rng.normal(size=shape),
        (rng.random(shape) < share) * 1.0,
        (rng.random(shape) < 0.7) * 1.0,
    )


def loss_of(*values):
    return float(balanced_bce(*(torch.from_numpy(v) for v in values)))


def test_balanced_bce_is_the_reference():
    for seed, share in ((0, 0.5), (1, 0.9), (2, 0.01)):
        values = arrays(seed, share)
        np.testing.assert_allclose(loss_of(*values), reference(*values), rtol=1e-5)


def test_masked_voxels_do_not_count():
    logits, target, mask = arrays(3, 0.5)
    changed = np.where(mask == 0, 50.0, logits)
    assert loss_of(logits, target, mask) == loss_of(changed, target, mask)


def test_a_channel_without_known_voxels_is_left_out():
    logits, target, mask = arrays(4, 0.5)
    mask[:, 1] = 0
    np.testing.assert_allclose(
        loss_of(logits, target, mask), reference(logits, target, mask), rtol=1e-5
    )


def test_nothing_known_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss = balanced_bce(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3))
    loss.backward()
    assert loss == 0
    assert torch.all(logits.grad == 0)


def test_a_rare_class_weighs_as_much_as_the_common_one():
    target = np.zeros((1, 1, 1, 1, 100))
    target[..., :10] = 1
    wrong_on_rare = np.where(target == 1, -3.0, -3.0)
    wrong_on_common = np.where(target == 1, 3.0, 3.0)
    mask = np.ones_like(target)
    np.testing.assert_allclose(
        loss_of(wrong_on_rare, target, mask), loss_of(wrong_on_common, target, mask), rtol=1e-5
    )


def test_masked_mse_is_the_mean_over_masked_voxels():
    logits, target, _ = arrays(5, 0.5)
    mask = (np.random.default_rng(6).random((2, 4, 5, 6)) < 0.6).astype(np.uint8)
    error = ((1 / (1 + np.exp(-logits)) - target) ** 2).mean(axis=1)[mask.astype(bool)].mean()
    found = masked_mse(*(torch.from_numpy(v) for v in (logits, target, mask)))
    assert float(found) == pytest.approx(error, rel=1e-5)


def test_masked_mse_of_nothing_is_zero_and_has_a_gradient():
    logits = torch.zeros(1, 2, 3, 3, 3, requires_grad=True)
    loss = masked_mse(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 3, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()

"""Weighted and hard-voxel losses against examples that are worked out by hand, and their gradients."""

import numpy as np
import pytest
import torch

from em_blocks.errors import ConfigError
from em_blocks.nets.loss_sum import LossSum
from em_blocks.nets.losses import BCE, LOSSES, MSE, Dice
from em_blocks.nets.unet import ACTIVATIONS
from em_blocks.nets.weighted_losses import BinaryReg, OhemBCE, OhemMSE, WeightedBCE, WeightedMSE

LN2 = np.log(2)
IDENTITY, TANH = {"activate": ACTIVATIONS["identity"]}, {"activate": ACTIVATIONS["tanh"]}


def line(*values):
    """One sample, one channel, one row."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, 1, -1)


def ones(like):
    return torch.ones_like(like)


# -- weights ---------------------------------------------------------------------------------


def test_the_foreground_weighs_its_background_by_a_worked_example():
    # One of five voxels is foreground: it weighs (1 - 1/5) / (1/5) = 4, the others 1.
    target = line(1, 0, 0, 0, 0)
    predicted = line(0.5, 0.1, 0, 0, 0.2)
    by_hand = (4 * 0.25 + 0.01 + 0.04) / 5
    assert float(WeightedMSE()(predicted, target, ones(target), **IDENTITY)) == pytest.approx(by_hand)
    zero = torch.zeros_like(target)
    assert float(WeightedBCE()(zero, target, ones(target))) == pytest.approx((4 + 4) * LN2 / 5)
    assert float(WeightedMSE()(zero, target, ones(target))) == pytest.approx(8 * 0.25 / 5)


def test_a_foreground_below_the_rarest_share_weighs_as_if_it_had_it():
    target = torch.zeros(1, 1, 1, 10, 100)
    target[..., 0, 0] = 1  # a thousandth: its weight is 99, not 999
    missed = (1 - target) * 0  # only the foreground is wrong
    found = WeightedMSE()(missed, target, ones(target), **IDENTITY)
    assert float(found) == pytest.approx(99 / 1000)
    found = WeightedMSE(rarest=0.25)(missed, target, ones(target), **IDENTITY)
    assert float(found) == pytest.approx(3 / 1000)


def test_every_sample_of_a_batch_has_weights_of_its_own():
    target = torch.cat([line(1, 0, 0, 0), line(1, 1, 0, 0)])
    wrong = 1 - target
    # 3 + 1 + 1 + 1 of the first sample, 1 + 1 + 1 + 1 of the second one.
    assert float(WeightedMSE()(wrong, target, ones(target), **IDENTITY)) == pytest.approx(10 / 8)


def test_what_is_unknown_has_no_part_in_weights_or_mean():
    target, mask = line(1, 0, 1, 0, 0, 0), line(1, 1, 0, 0, 1, 1)
    wrong = 1 - target
    # Four known voxels, one of them foreground.
    assert float(WeightedMSE()(wrong, target, mask, **IDENTITY)) == pytest.approx((3 + 3) / 4)
    changed = torch.where(mask > 0, wrong, torch.full_like(wrong, 1e6))
    assert float(WeightedMSE()(changed, target, mask, **IDENTITY)) == pytest.approx(6 / 4)


def test_the_rim_of_a_distance_is_foreground_and_minus_one_is_background():
    target, predicted = line(0, 1, -1, -1, -1, -1), torch.zeros(1, 1, 1, 1, 6)
    # Two of six: weight 2; errors 0, 1 and four times 1.
    found = WeightedMSE(background=-1)(predicted, target, ones(target), **TANH)
    assert float(found) == pytest.approx((2 * 1 + 4) / 6)
    # With background 0, the rim would not weigh more: one of six is foreground.
    assert float(WeightedMSE()(predicted, target, ones(target), **TANH)) == pytest.approx((5 + 4) / 6)


def test_masks_without_channels_hold_for_all_channels():
    rng = np.random.default_rng(0)
    logits, target = torch.from_numpy(rng.normal(size=(2, 2, 2, 3, 3, 4))).float()
    mask = torch.from_numpy(rng.random((2, 3, 3, 4)) < 0.5).float()
    target = (target > 0).float()
    whole = mask[:, None].expand_as(logits)
    for loss in (WeightedMSE(), WeightedBCE(), OhemMSE(min_kept=7), BinaryReg()):
        assert float(loss(logits, target, mask)) == float(loss(logits, target, whole))


# -- hard voxels ---------------------------------------------------------------------------------


def test_the_hardest_are_those_with_the_largest_error_of_their_own_class():
    # Background that is called foreground is hard, though its probability is high.
    target, predicted = line(1, 1, 0, 0, 0), line(0.2, 0.9, 0.9, 0.1, 0.3)
    two = OhemMSE(min_kept=2, weighted=False)(predicted, target, ones(target), **IDENTITY)
    assert float(two) == pytest.approx((0.64 + 0.81) / 2)
    logits = torch.logit(predicted)
    found = OhemBCE(min_kept=2, weighted=False)(logits, target, ones(target))
    assert float(found) == pytest.approx(-(np.log(0.2) + np.log(0.1)) / 2, rel=1e-5)


def test_weights_multiply_the_kept_errors_but_do_not_choose_them():
    target, predicted = line(1, 0, 0, 0, 0), line(0.5, 0.9, 0.8, 0, 0)
    # Weighted, the foreground would be the hardest: 4 * 0.25 > 0.81.
    one = OhemMSE(min_kept=1)(predicted, target, ones(target), **IDENTITY)
    assert float(one) == pytest.approx(0.81)
    three = OhemMSE(min_kept=3)(predicted, target, ones(target), **IDENTITY)
    assert float(three) == pytest.approx((0.81 + 0.64 + 4 * 0.25) / 3)


@pytest.mark.parametrize("kept", [1, 5, 24, 60, 61, 1000])
@pytest.mark.parametrize("loss", [OhemMSE, OhemBCE])
def test_exactly_min_kept_values_have_a_gradient_whatever_is_equal(loss, kept):
    rng = np.random.default_rng(kept)
    logits = torch.from_numpy(rng.integers(-2, 3, (2, 1, 3, 4, 5)) * 0.7).float().requires_grad_()
    target = torch.from_numpy(rng.random((2, 1, 3, 4, 5)) < 0.3).float()
    mask = ones(target)
    mask[0, 0, 0] = 0  # 100 of 120 are known
    loss(min_kept=kept)(logits, target, mask).backward()
    changed = int((logits.grad != 0).sum())
    assert changed == min(kept, 100) and not logits.grad[mask == 0].any()


def test_the_hardest_of_all_voxels_are_the_weighted_loss():
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(size=(2, 1, 3, 4, 5))).float()
    target = (torch.from_numpy(rng.random((2, 1, 3, 4, 5))) < 0.3).float()
    mask = (torch.from_numpy(rng.random((2, 1, 3, 4, 5))) < 0.8).float()
    for hard, plain in ((OhemMSE, WeightedMSE), (OhemBCE, WeightedBCE)):
        expected = float(plain()(logits, target, mask))
        assert float(hard()(logits, target, mask)) == pytest.approx(expected, rel=1e-5)


# -- regulariser, Dice, sums ------------------------------------------------------------------------


def test_the_regulariser_is_alpha_over_the_sum_of_distances_from_a_half():
    predicted, target = line(0.5, 0.9, 0.2, 0.505), line(0, 0, 0, 0)
    found = BinaryReg()(predicted, target, ones(target), **IDENTITY)
    assert float(found) == pytest.approx(10 / (0.01 + 0.4 + 0.3 + 0.01), rel=1e-5)
    found = BinaryReg(alpha=2, least=0.1)(predicted, target, line(1, 0, 1, 0), **IDENTITY)
    assert float(found) == pytest.approx(2 / (0.1 + 0.3), rel=1e-5)
    assert float(BinaryReg()(predicted, target, 0 * target, **IDENTITY)) == 0


def test_dice_of_squares_is_that_of_a_worked_example():
    predicted, target = line(0.5, 1, 0.2, 0), line(1, 1, 0, 0)
    p_t, p_p, t_t = 1.5, 0.25 + 1 + 0.04, 2
    found = Dice(squares=True, smooth=100)(predicted, target, ones(target), **IDENTITY)
    assert float(found) == pytest.approx(1 - (2 * p_t + 100) / (p_p + t_t + 100), rel=1e-4)
    found = Dice(smooth=1)(predicted, target, ones(target), **IDENTITY)
    assert float(found) == pytest.approx(1 - 4 / 4.7, rel=1e-5)


def test_dice_of_squares_is_no_part_of_configs_that_do_not_ask_for_it():
    assert "squares" not in Dice().model_dump() and Dice(squares=True).model_dump()["squares"] is True


def test_a_sum_adds_its_weighted_losses():
    logits, target, mask = torch.randn(3, 2, 1, 2, 3, 4)
    target, mask = (target > 0).float(), (mask > -1).float()
    made = LossSum.from_dict({
        "losses": [{"kind": "bce"}, {"kind": "mse", "balance": 1}, {"kind": "dice"}],
        "weights": [2, 0.5, 1],
    })
    expected = (
        2 * BCE()(logits, target, mask) + 0.5 * MSE(balance=1)(logits, target, mask)
        + Dice()(logits, target, mask)
    )
    assert float(made(logits, target, mask)) == pytest.approx(float(expected), rel=1e-5)
    assert LossSum.from_dict(made.model_dump(mode="json")) == made
    with pytest.raises(ConfigError, match="`weights`"):
        LossSum(losses=[BCE(), MSE()], weights=[1])


# -- gradients --------------------------------------------------------------------------------------


# Not the discriminative loss, which has ids as its target: test_embedding_losses.py checks it.
@pytest.mark.parametrize("kind", sorted(set(LOSSES.names()) - {"discriminative"}))
def test_the_gradient_is_the_slope_of_the_loss(kind):
    options = {
        "sum": {"losses": [{"kind": "bce"}, {"kind": "weighted_mse"}]},
        # Weights change with the choice of voxels, and the loss jumps; without them it does not.
        "ohem_mse": {"min_kept": 3, "weighted": False}, "ohem_bce": {"min_kept": 3, "weighted": False},
    }
    loss = LOSSES.get(kind).from_dict({"kind": kind, **options.get(kind, {})})
    torch.manual_seed(4)
    logits = torch.randn(2, 3, 2, 3, 4)
    logits = (logits + logits.sign() / 2).requires_grad_()  # the regulariser has a kink at 0
    target = (torch.rand(2, 3, 2, 3, 4) < 0.4).float()
    mask = (torch.rand(2, 3, 2, 3, 4) < 0.8).float()
    if kind == "cross_entropy":
        target, mask = torch.randint(0, 3, (2, 2, 3, 4)), mask[:, 0]
    loss(logits, target, mask).backward()
    step = 5e-4
    with torch.no_grad():
        for _ in range(3):
            way = torch.randn_like(logits)
            there, back = (float(loss(logits + sign * step * way, target, mask)) for sign in (1, -1))
            slope, expected = (there - back) / (2 * step), float((logits.grad * way).sum())
            assert slope == pytest.approx(expected, rel=0.02, abs=1e-3)
        assert logits.grad.abs().sum() > 0

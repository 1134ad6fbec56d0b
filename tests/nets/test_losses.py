"""Losses against slow references."""

import numpy as np
import pytest
import torch

from em_blocks.errors import ConfigError
from em_blocks.nets.losses import BCE, LOSSES, MSE, BalancedBCE, CrossEntropy, Dice, Focal, Loss
from em_blocks.nets.unet import ACTIVATIONS


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
    return float(BalancedBCE()(*(torch.from_numpy(v) for v in values)))


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
    loss = BalancedBCE()(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3))
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
    found = MSE()(*(torch.from_numpy(v) for v in (logits, target, mask)))
    assert float(found) == pytest.approx(error, rel=1e-5)


def test_masked_mse_of_nothing_is_zero_and_has_a_gradient():
    logits = torch.zeros(1, 2, 3, 3, 3, requires_grad=True)
    loss = MSE()(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 3, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


# -- synapses --------------------------------------------------------------------------------


def indicator_reference(x, target, mask, kind, rarest=0.0007, balance=1.0, gamma=2.0):
    """Voxel by voxel."""
    known = [i for i in np.ndindex(mask.shape) if mask[i]]
    share = sum(target[i] for i in known) / max(1, len(known))
    share = min(max(share, rarest), 1 - rarest)
    total = 0.0
    for i in known:
        p = 1 / (1 + np.exp(-x[i]))
        right = p if target[i] else 1 - p
        error = {
            "mse": (p - target[i]) ** 2, "cross_entropy": -np.log(right),
            "focal": -np.log(right) * (1 - right) ** gamma,
        }[kind]
        total += error * (0.5 / (share if target[i] else 1 - share)) ** balance
    return total / max(1, len(known))


def indicator_arrays(seed=0, share=0.1):
    rng = np.random.default_rng(seed)
    shape = (2, 1, 3, 4, 5)
    target, mask = (rng.random(shape) < s for s in (share, 0.8))
    return rng.normal(size=shape), target * 1.0, mask * 1.0


def rare(kind="cross_entropy", gamma=2.0, **options):
    """The loss of a rare class by its name in the config of an indicator."""
    options = {"balance": 1.0} | options
    losses = {"cross_entropy": BCE, "mse": MSE, "focal": Focal}
    return losses[kind](**options, **({"gamma": gamma} if kind == "focal" else {}))


def indicator(logits, target, mask, **options):
    return float(rare(**options)(*map(torch.from_numpy, (logits, target, mask))))


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "focal"])
@pytest.mark.parametrize("options", [
    {}, {"rarest": 0.4}, {"balance": 0.0}, {"balance": 0.5}, {"gamma": 1.5},
], ids=str)
def test_the_indicator_loss_is_the_reference(kind, options):
    for seed, share in ((0, 0.1), (1, 0.5), (2, 0.0)):
        values = indicator_arrays(seed, share)
        expected = indicator_reference(*values, kind, **options)
        assert indicator(*values, kind=kind, **options) == pytest.approx(expected, rel=1e-5)


def test_weights_of_the_indicator_are_those_of_a_worked_example():
    # One of four known voxels is a site: it weighs 1 / (2 / 4) = 2, the others 1 / (2 * 3 / 4).
    logits, target, mask = np.zeros((3, 1, 1, 1, 1, 5))
    target[..., 0], mask[..., :4] = 1, 1
    ln2 = np.log(2)
    assert indicator(logits, target, mask) == pytest.approx((2 + 3 * 2 / 3) / 4 * ln2)
    assert indicator(logits, target, mask, balance=0.0) == pytest.approx(ln2)
    assert indicator(logits, target, mask, kind="mse") == pytest.approx(0.25)
    assert indicator(logits, target, mask, kind="focal", gamma=1.0) == pytest.approx(ln2 / 2)


def test_a_class_rarer_than_the_rarest_weighs_as_if_it_had_that_share():
    target = np.zeros((1, 1, 1, 10, 100))
    target[0, 0, 0, 0, 0] = 1  # a thousandth
    mask, missed = np.ones_like(target), np.full_like(target, -20.0)  # only the site is wrong
    assert indicator(missed, target, mask, rarest=0.01) == pytest.approx(20 * 50 / 1000, rel=1e-4)
    assert indicator(missed, target, mask, rarest=1e-4) == pytest.approx(20 * 500 / 1000, rel=1e-4)


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "focal"])
def test_an_indicator_without_known_voxels_has_no_loss_and_a_gradient_of_zero(kind):
    logits = torch.randn(1, 1, 2, 3, 3, requires_grad=True)
    loss = rare(kind)(logits, torch.ones_like(logits), torch.zeros_like(logits))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "focal"])
def test_the_gradient_of_a_sure_and_right_indicator_is_finite(kind):
    logits = torch.tensor([80.0, -80.0]).reshape(1, 1, 1, 1, 2).requires_grad_()
    target = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 1, 2)
    rare(kind, gamma=0.5)(logits, target, torch.ones_like(target)).backward()
    assert torch.isfinite(logits.grad).all()


def test_the_vector_loss_is_the_mean_of_squared_components_where_there_are_vectors():
    rng = np.random.default_rng(3)
    vectors, target = rng.normal(size=(2, 2, 3, 4, 5, 6))
    mask = (rng.random((2, 4, 5, 6)) < 0.2).astype(np.uint8)
    expected = np.mean([
        (vectors[n, c, z, y, x] - target[n, c, z, y, x]) ** 2
        for n, z, y, x in np.argwhere(mask) for c in range(3)
    ])
    loss, plain = MSE(), {"activate": ACTIVATIONS["identity"]}
    found = loss(*map(torch.from_numpy, (vectors, target, mask)), **plain)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    changed = np.where(mask[:, None] == 0, 1e6, vectors)
    again = loss(*map(torch.from_numpy, (changed, target, mask)), **plain)
    assert float(again) == float(found)


# -- classes ---------------------------------------------------------------------------------


def classes(seed=0, n=4):
    """Logits (2, n, z, y, x), class numbers with nonsense where nothing is known, mask."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((2, 3, 4, 5)) < 0.7).astype(np.uint8)
    target = np.where(mask, rng.integers(0, n, mask.shape), 255).astype(np.uint8)
    return rng.normal(size=(2, n, 3, 4, 5)), target, mask


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 2.5, 0.3)])
def test_cross_entropy_is_the_weighted_mean_over_known_voxels(weights):
    logits, target, mask = classes()
    total = weight = 0.0
    for n, z, y, x in np.argwhere(mask):
        wanted = target[n, z, y, x]
        w = 1.0 if weights is None else weights[wanted]
        total -= w * np.log(softmax(logits[n, :, z, y, x])[wanted])
        weight += w
    found = CrossEntropy(class_weights=weights)(*map(torch.from_numpy, (logits, target, mask)))
    assert float(found) == pytest.approx(total / weight, rel=1e-5)


def dice_reference(predicted, target, mask, smooth):
    """Channel by channel."""
    losses = []
    for c in range(predicted.shape[1]):
        p, t = (values[:, c][mask > 0] for values in (predicted, target))
        losses.append(1 - (2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return np.mean(losses)


def test_dice_of_channels_and_of_classes_is_the_reference():
    logits, target, mask = classes(1)
    channels = np.stack([target == c for c in range(4)], axis=1) * 1.0
    sigmoid = dice_reference(1 / (1 + np.exp(-logits)), channels, mask, 1.0)
    found = Dice()(*map(torch.from_numpy, (logits, channels, mask)))
    assert float(found) == pytest.approx(sigmoid, rel=1e-5)
    probability = np.apply_along_axis(softmax, 1, logits)
    found = Dice(smooth=0.1)(
        *map(torch.from_numpy, (logits, target, mask)), activate=ACTIVATIONS["softmax"]
    )
    assert float(found) == pytest.approx(dice_reference(probability, channels, mask, 0.1), rel=1e-5)


def test_a_balanced_binary_loss_takes_one_mask_for_all_channels():
    logits, target, mask = arrays(8, 0.3)
    mask = mask[:, :1].repeat(3, axis=1)
    found = BalancedBCE()(*map(torch.from_numpy, (logits, target, mask[:, 0])))
    assert float(found) == pytest.approx(reference(logits, target, mask), rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES.names())
def test_a_loss_is_zero_with_a_gradient_of_zero_where_nothing_is_known(kind):
    loss = LOSSES.get(kind)(**({"losses": [{"kind": "bce"}]} if kind == "sum" else {}))
    assert isinstance(loss, Loss) and loss.kind == kind
    assert type(loss).from_dict(loss.model_dump(mode="json")) == loss
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    one_id = kind in {"cross_entropy", "discriminative"}
    target = torch.full((1, 2, 2, 2) if one_id else (1, 3, 2, 2, 2), 1.0)
    value = loss(logits, target, torch.zeros(1, 2, 2, 2))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("values", [{"rarest": 0}, {"balance": 1.5}, {"gama": 1}])
def test_parameters_that_cannot_be_meant_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Focal.from_dict(values)

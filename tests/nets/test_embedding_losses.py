"""The discriminative loss: examples by hand, zero within margins, gradients."""

import math

import pytest
import torch

from em_blocks.nets.embedding_losses import Discriminative


def same(values):
    return values


def loss(embedding, ids, mask=None, **keys):
    """Loss of one sample whose voxels lie along x; `embedding` has a row for each."""
    values = torch.as_tensor(embedding, dtype=torch.float32).T[None, :, None, None]
    ids = torch.tensor(ids)[None, None, None]
    mask = torch.ones_like(ids) if mask is None else torch.tensor(mask)[None, None, None]
    return float(Discriminative(**keys)(values, ids, mask, activate=same))


ONLY = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}
TWO = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [4.0, 2.0], [2.0, 2.0]]
"""Cluster 5 has the mean (1, 0), both voxels at the distance 1; cluster 9 has (2, 2): 2, 2 and 0."""
IDS = [5, 5, 9, 9, 9]


def test_pull_is_the_mean_over_clusters_of_the_mean_over_voxels():
    first, second = 0.5**2, 2 * 1.5**2 / 3
    assert loss(TWO, IDS, **ONLY | {"alpha": 1}) == pytest.approx((first + second) / 2)


def test_push_is_that_of_the_paper_and_not_half_of_it():
    hinge = (2 * 1.5 - math.sqrt(5)) ** 2
    assert loss(TWO, IDS, **ONLY | {"beta": 1}) == pytest.approx(hinge)
    third = [*TWO, [1.0, 1.0]]  # at 1 from the first mean, sqrt(2) from the second
    hinges = [hinge, (3 - 1) ** 2, (3 - math.sqrt(2)) ** 2]
    assert loss(third, [*IDS, 1], **ONLY | {"beta": 1}) == pytest.approx(sum(hinges) / 3)


def test_regularisation_is_the_mean_length_of_the_means():
    assert loss(TWO, IDS, **ONLY | {"gamma": 1}) == pytest.approx((1 + math.sqrt(8)) / 2)


def test_weights_and_margins_of_the_whole():
    pull, push, length = (0.8**2 + 2 * 1.8**2 / 3) / 2, (2 * 1.2 - math.sqrt(5)) ** 2, 1 + math.sqrt(8)
    found = loss(TWO, IDS, delta_v=0.2, delta_d=1.2, alpha=2, beta=3, gamma=0.5)
    assert found == pytest.approx(2 * pull + 3 * push + 0.25 * length, rel=1e-5)


def test_defaults_are_those_of_the_paper_with_a_weak_regularisation():
    length = 1e-4 * (1 + math.sqrt(8)) / 2
    expected = (0.25 + 1.5) / 2 + (3 - math.sqrt(5)) ** 2 + length
    assert loss(TWO, IDS) == pytest.approx(expected, rel=1e-5)


def test_zero_when_all_margins_hold_and_not_beyond():
    near = [[0.0, 0.0], [1.0, 0.0], [3.5, 0.0], [3.5, 0.0]]  # 0.5 from their mean; means 3 apart
    assert loss(near, [1, 1, 2, 2], gamma=0.0) == 0.0
    wide = [[-0.01, 0.0], [1.01, 0.0], [3.5, 0.0], [3.5, 0.0]]
    assert loss(wide, [1, 1, 2, 2], gamma=0.0) == pytest.approx(0.01**2 / 2, rel=1e-3)
    close = [[0.0, 0.0], [1.0, 0.0], [3.4, 0.0], [3.4, 0.0]]
    assert loss(close, [1, 1, 2, 2], gamma=0.0) == pytest.approx(0.1**2, rel=1e-3)


def test_background_counts_as_asked_for():
    embedding = [[0.0], [2.0], [10.0], [20.0]]
    ids = [0, 0, 3, 4]
    only = ONLY | {"alpha": 1, "delta_v": 0.0}
    assert loss(embedding, ids, **only) == 0.0
    both = loss(embedding, ids, clusters="instances_and_background", **only)
    assert both == pytest.approx((1 + 0 + 0) / 3)
    halves = loss(embedding, ids, clusters="foreground_and_background", **only)
    assert halves == pytest.approx((1 + 25) / 2)


def test_unknown_voxels_do_not_count():
    embedding, ids = [[0.0], [100.0], [9.0]], [1, 1, 2]
    assert loss(embedding, ids, [1, 0, 1], gamma=0.0) == 0.0
    assert loss(embedding, ids, gamma=0.0) > 1


def test_the_mean_is_that_of_the_samples_with_clusters():
    torch.manual_seed(0)
    values = torch.randn(3, 2, 1, 4, 4, requires_grad=True)
    ids = torch.randint(1, 4, (3, 1, 4, 4))
    ids[1] = 0
    criterion, known = Discriminative(), torch.ones(3, 1, 4, 4)
    whole = criterion(values, ids, known, activate=same)
    alone = [criterion(values[n : n + 1], ids[n : n + 1], known[:1], activate=same) for n in (0, 2)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())
    whole.backward()
    assert not values.grad[1].any() and values.grad[0].any()


def test_without_any_cluster_loss_and_gradient_are_zero():
    values = torch.randn(2, 3, 1, 4, 4, requires_grad=True)
    found = Discriminative()(values, torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4), activate=same)
    found.backward()
    assert found.item() == 0.0 and not values.grad.any()


def test_voxels_on_their_mean_have_a_finite_gradient():
    values = torch.ones(1, 2, 1, 2, 2, requires_grad=True)
    ids = torch.tensor([[[[1, 1], [2, 2]]]])
    Discriminative(delta_v=0.0)(values, ids, torch.ones(1, 1, 2, 2), activate=same).backward()
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize(
    "clusters", ["instances", "instances_and_background", "foreground_and_background"]
)
def test_the_gradient_is_that_of_finite_differences(clusters, monkeypatch):
    torch.manual_seed(1)
    values = torch.randn(2, 3, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(0, 3, (2, 1, 3, 4))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    criterion = Discriminative(clusters=clusters, gamma=0.1)
    mask = torch.rand(2, 1, 3, 4) < 0.8
    assert torch.autograd.gradcheck(lambda v: criterion(v, ids, mask, activate=same), (values,))

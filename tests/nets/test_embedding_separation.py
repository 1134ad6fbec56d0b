"""The discriminative loss separates objects that touch, which the components of a mask merge."""

import numpy as np
import pytest
import torch

from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import adapted_rand
from em_blocks.kernels.instances.embeddings import cluster_embeddings
from em_blocks.nets.embedding_losses import Discriminative

pytest.importorskip("sklearn")


def touching():
    """Labels (2, 24, 36) of a row of three objects that touch, and one apart from them."""
    labels = np.zeros((2, 24, 36), np.int64)
    labels[:, 2:14, 2:10], labels[:, 2:14, 10:20], labels[1, 4:14, 20:30] = 1, 2, 3
    labels[:, 17:23, 5:30] = 4
    return labels


def error(segments, labels):
    inside = labels > 0
    return adapted_rand(count_overlaps(segmentation=segments[inside], truth=labels[inside])).error


def test_vectors_that_minimise_the_loss_have_the_objects_apart():
    labels, criterion = touching(), Discriminative()
    torch.manual_seed(0)
    vectors = torch.randn(1, 3, *labels.shape, requires_grad=True)
    target, known = torch.from_numpy(labels)[None], torch.ones(1, *labels.shape)
    optimizer, losses = torch.optim.Adam([vectors], lr=0.1), []
    for _ in range(100):
        loss = criterion(vectors, target, known, activate=lambda logits: logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    mask = labels > 0
    by_vectors = cluster_embeddings(vectors[0].detach().numpy(), mask, min_size=20)
    by_mask = find_parts(mask.astype(np.uint8)).numbers
    found = {"embedding": error(by_vectors, labels), "mask": error(by_mask, labels)}
    print(f"ARAND: {found}")
    assert losses[-1] < 0.01 < losses[0]
    assert found["embedding"] < 0.01 < 0.2 < found["mask"]
    assert by_vectors.max() == 4 and by_mask.max() == 2

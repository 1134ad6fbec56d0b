"""Touching objects by embeddings of a trained network, against the components of a binary mask.

Sections of discs that touch: each has a grey value of its own, and where two touch there is no gap. A
small 2-D U-Net learns the foreground and, by the discriminative loss, an embedding. On sections that it
has not seen, the mask of the foreground is split by the clusters of the embedding, and into its
connected components. Prints the adapted Rand error (ARAND, 0 is best) of both.
"""

from __future__ import annotations

import json
import time

import click
import numpy as np
import torch

from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import adapted_rand
from em_blocks.kernels.instances.embeddings import cluster_embeddings
from em_blocks.nets.embedding_losses import Discriminative
from em_blocks.nets.losses import BCE
from em_blocks.nets.unet import Head, UNet

SIDE, DISCS, SMALLEST = 92, 9, 20
OUTPUT = 64


def touching_discs(random: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Make a section (y, x) of float32 greys, and its labels, 0 in the background."""
    y, x = np.indices((side, side))
    centres = random.uniform(0, side, (DISCS, 2))
    distance = np.hypot(y - centres[:, :1, None], x - centres[:, 1:, None])
    radius = random.uniform(12, 20, (DISCS, 1, 1))
    nearest = np.argmin(distance / radius, axis=0)
    inside = (distance < radius).any(axis=0)
    labels = np.where(inside, nearest + 1, 0)
    greys = np.concatenate([[0.0], random.permutation(np.linspace(0.3, 1, DISCS))])
    return (greys[labels] + random.normal(0, 0.03, labels.shape)).astype(np.float32), labels


def network(channels: int) -> UNet:
    """Make a 2-D U-Net with a foreground and an embedding."""
    return UNet(
        features=[12, 24], kernels=[[(1, 3, 3)] * 2, [(1, 3, 3)] * 2], pooling=[(1, 2, 2)],
        heads={"foreground": Head(1, "sigmoid"), "embedding": Head(channels, "identity")},
    )


def sample(net: UNet, random: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """Make raw (1, 1, 1, y, x) and the labels (1, y, x) of the output."""
    side = OUTPUT + 2 * net.context[1]
    raw, labels = touching_discs(random, side)
    middle = slice(net.context[1], side - net.context[1])
    return torch.from_numpy(raw)[None, None, None], labels[None, middle, middle]


def train(net: UNet, iterations: int, random: np.random.Generator) -> float:
    """Train and return the last loss of the embedding."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    pull, cross = Discriminative(), BCE()
    for _ in range(iterations):
        raw, labels = sample(net, random)
        target = torch.from_numpy(labels)[None]
        known, outputs = torch.ones_like(target), net(raw)
        loss = pull(outputs["embedding"], target, known, activate=lambda logits: logits)
        total = loss + cross(outputs["foreground"], (target > 0).float(), known)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())


def errors(net: UNet, n: int, random: np.random.Generator) -> dict[str, float]:
    """Return the mean ARAND of `n` sections, by embeddings and by components of the mask."""
    found: dict[str, list[float]] = {"arand_embedding": [], "arand_mask_components": []}
    for _ in range(n):
        raw, labels = sample(net, random)
        with torch.inference_mode():
            outputs = {name: values[0].numpy() for name, values in net.predict(raw).items()}
        mask = outputs["foreground"][0] > 0.5
        split = {
            "arand_embedding": cluster_embeddings(outputs["embedding"], mask, min_size=SMALLEST),
            "arand_mask_components": find_parts(mask.astype(np.uint8)).numbers,
        }
        for name, segments in split.items():
            kept = labels > 0
            table = count_overlaps(segmentation=segments[kept], truth=labels[kept])
            found[name].append(adapted_rand(table).error)
    return {name: round(float(np.mean(values)), 4) for name, values in found.items()}


@click.command()
@click.option("--iterations", default=400, show_default=True)
@click.option("--sections", default=10, show_default=True, help="Sections that are scored.")
@click.option("--channels", default=6, show_default=True, help="Of the embedding.")
def main(iterations: int, sections: int, channels: int) -> None:
    torch.manual_seed(0)
    net, began = network(channels), time.perf_counter()
    loss = train(net.train(), iterations, np.random.default_rng(1))
    seconds = time.perf_counter() - began
    found = errors(net.eval(), sections, np.random.default_rng(2))
    print(json.dumps({
        **found, "sections": sections, "iterations": iterations, "training_s": round(seconds, 1),
        "last_loss": round(loss, 3),
    }))


if __name__ == "__main__":
    main()

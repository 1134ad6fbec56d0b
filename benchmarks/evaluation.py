"""Speed of scoring a segmentation (VOI and adapted Rand error), against scikit-image.

The neurons of a generated volume, and a segmentation that cuts and joins them, both uint64 and in
memory. em_blocks counts blocks of 128^3, merges their tables, and scores them, in one process;
scikit-image counts the whole volume once for each of the two scores. Both must agree.
"""

from __future__ import annotations

import itertools
import json
import time

import click
import numpy as np
from skimage.metrics import adapted_rand_error, variation_of_information

from em_blocks.geometry import Box
from em_blocks.kernels.evaluation.contingency import count_overlaps, merged
from em_blocks.kernels.evaluation.segmentation_scores import evaluate
from em_blocks.kernels.synthetic.volume import phantom

BLOCK = 128


def cut_and_join(neurons: np.ndarray) -> np.ndarray:
    """Neurons cut at every 50th section along each axis, and every tenth joined with the next."""
    z, y, x = (np.arange(n, dtype=np.uint64) // 50 for n in neurons.shape)
    cell = (z[:, None, None] * 100 + y[:, None]) * 100 + x
    return (neurons - (neurons % 10 == 1)) * np.uint64(2**32) + cell


def ours(segmentation: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    corners = itertools.product(*(range(0, n, BLOCK) for n in truth.shape))
    whole = Box((0, 0, 0), truth.shape)
    boxes = (Box(corner, (BLOCK,) * 3).intersect(whole) for corner in corners)
    table = merged(
        count_overlaps(segmentation=segmentation[b.slices], truth=truth[b.slices]) for b in boxes
    )
    found = evaluate(lambda: [table], ignore_truth=[0])
    return (*found.voi, found.arand.error)


def theirs(segmentation: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    voi = variation_of_information(truth, segmentation, ignore_labels=[0])
    return (*voi, adapted_rand_error(truth, segmentation, ignore_labels=[0])[0])


def rate(scores, segmentation: np.ndarray, truth: np.ndarray) -> tuple[float, tuple[float, ...]]:
    """Mvoxel/s, and the scores."""
    start = time.perf_counter()
    found = scores(segmentation, truth)
    return truth.size / 1e6 / (time.perf_counter() - start), found


@click.command()
@click.option("--size", default=256, show_default=True, help="Voxels along each axis.")
def main(size: int) -> None:
    truth = phantom((size,) * 3, voxel_size=(10, 10, 10), seed=5).neurons.astype(np.uint64)
    # Ranks, because scikit-image makes a matrix as large as the largest id.
    ranks = np.unique(cut_and_join(truth), return_inverse=True)[1].reshape(truth.shape)
    value, found = rate(ours, ranks.astype(np.uint64), truth)
    against, expected = rate(theirs, ranks, truth.astype(np.int64))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    print(json.dumps({"name": "scoring a segmentation", "value": round(value), "unit": "Mvoxel/s",
                      "against": round(against, 1), "ratio": round(value / against, 1)}))


if __name__ == "__main__":
    main()

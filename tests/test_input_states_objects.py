"""Verbs that follow a prediction of classes, whatever becomes of the volumes that they read."""

import numpy as np
import pytest

import mapping
from em_blocks.evaluation.mask import score
from em_blocks.json_text import json_text
from em_blocks.tasks.evaluation.count_mask import CountMask
from em_blocks.tasks.linking.link_slabs import LinkSlabs
from em_blocks.tasks.objects.objects import Objects
from em_blocks.tasks.objects.threshold import Threshold
from preparing import FRAME, textured
from walking import SEEDS, Verb, Walk, voxels

SHAPE = (12, 33, 41)
uri = mapping.uri

PROBABILITIES = (tuple(textured(SHAPE, seed) for seed in (1, 2)), {"scale": 255.0})
TISSUE = (tuple((textured(SHAPE, seed) > 90).astype("uint8") for seed in (3, 4)), {})
SLAB = (tuple((textured(SHAPE, seed) // 32).astype("uint16") for seed in (5, 6)), {})
TRUTH = (tuple((textured(SHAPE, seed) > 130).astype("uint16") for seed in (5, 6)), {})


def threshold(paths, folder, **options):
    return Threshold.from_dict({
        "kind": "threshold", "run": "verb", "threshold": 0.5, "output": str(folder / "out.zarr/made"),
        "chunk_shape": [5, 8, 8], "block_shape": [5, 16, 24], **paths, **options,
    })


def objects(paths, folder, **options):
    return Objects.from_dict({
        "kind": "objects", "run": "verb", "threshold": 0.5, "output": str(folder / "out.zarr"),
        "chunk_shape": [5, 8, 8], "block_shape": [5, 16, 24], "min_size": 8, **paths, **options,
    })


def link(paths, folder, **options):
    """The same place for all inputs: the config moves one of two slabs behind the other."""
    behind = (FRAME.offset[0] + SHAPE[0] * FRAME.voxel_size[0], *FRAME.offset[1:])
    slabs = [{"path": paths["high"], "offset": behind}, paths["low"]]
    return LinkSlabs.from_dict({
        "kind": "link_slabs", "run": "verb", "slabs": slabs, "output": str(folder / "out.zarr/made"),
        "chunk_shape": [5, 8, 8], "block_shape": [5, 16, 24], **options,
    })


def count(paths, folder, **options):
    masks = [paths["metric"]]
    return CountMask.from_dict({
        "kind": "count_mask", "run": "verb", "prediction": paths["prediction"],
        "truth": paths["truth"], "metric_masks": masks, "output": str(folder / "evaluation"),
        "block_shape": [5, 12, 24], **options,
    })


def counted(task):
    return {"json": np.array(json_text(score(task, task.stored(task.grid().blocks())).document()))}


def verb(config, result, **inputs):
    return Verb(inputs, FRAME, config, result, (4, 11, 20), (4, 11, 10))


VERBS = {
    "threshold": verb(threshold, lambda task: voxels(task.output), prediction=PROBABILITIES,
                      mask=TISSUE),
    "objects": verb(objects, lambda task: voxels(f"{task.output}/objects"), prediction=PROBABILITIES),
    "link": verb(link, lambda task: voxels(task.output), low=SLAB, high=SLAB),
    "mask": verb(count, counted, prediction=PROBABILITIES, truth=TRUTH, metric=TISSUE),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_refuses_an_input_or_does_with_it_what_a_fresh_run_does(name, seed, uri, tmp_path):
    for one, other in (versions for versions, _ in VERBS[name].versions.values()):
        assert not np.array_equal(one, other)
    Walk(VERBS[name], tmp_path, uri, seed).go()

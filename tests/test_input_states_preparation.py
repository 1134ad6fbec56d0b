"""Verbs that prepare data, whatever becomes of the volumes that they read."""

import numpy as np
import pytest

import mapping
from em_blocks.tasks.preparation.convert import Convert
from em_blocks.tasks.preparation.equalize import Equalize
from em_blocks.tasks.preparation.metric_mask import MetricMask
from em_blocks.tasks.preparation.tissue_mask import TissueMask
from preparing import FRAME, textured
from walking import SEEDS, Verb, Walk, voxels

SHAPE = (12, 33, 41)
uri = mapping.uri


def preparing(task, kind, **values):
    """A function that makes a config from paths of inputs."""

    def config(paths, folder, **options):
        return task.from_dict({
            "kind": kind, "run": "verb", "output": str(folder / "out.zarr/made"),
            "chunk_shape": [5, 8, 8], "block_shape": [5, 16, 24], **values, **paths, **options,
        })

    return config


def verb(task, kind, inputs, **values):
    return Verb(inputs, FRAME, preparing(task, kind, **values), lambda task: voxels(task.output),
                (4, 11, 20), (4, 11, 10))


RAW = ((textured(SHAPE, 1), textured(SHAPE, 2)), {})
IDS = (tuple((textured(SHAPE, seed) > 120).astype("uint16") for seed in (1, 2)), {})
MIRROR = {"kind": "pad", "before": [2, 3, 4], "after": [0, 0, 9], "value": "mirror"}
VERBS = {
    "equalize": verb(Equalize, "equalize", {"raw": RAW}, kernel_shape=[4, 12, 12]),
    "tissue_mask": verb(TissueMask, "tissue_mask", {"raw": RAW}, grey_range=[60, 160], min_size=50,
                        opening=[0, 1, 1], closing=[1, 1, 1]),
    "metric_mask": verb(MetricMask, "metric_mask", {"labels": IDS}, organelle="golgi"),
    "convert": verb(Convert, "convert", {"input": RAW}, conversions=[MIRROR, {"kind": "invert"}]),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_refuses_an_input_or_does_with_it_what_a_fresh_run_does(name, seed, uri, tmp_path):
    assert not np.array_equal(*VERBS[name].versions[next(iter(VERBS[name].versions))][0])
    Walk(VERBS[name], tmp_path, uri, seed).go()

"""Predictions, whatever becomes of raw: the scale of every block may follow from all of it."""

import numpy as np
import pytest
from scipy import ndimage

import mapping
from em_blocks.geometry import Frame
from em_blocks.tasks.prediction.predict import Predict
from walking import SEEDS, Verb, Walk, voxels

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (14, 33, 50)
NORMALIZATIONS = {
    "linear": {"scale": 0.01, "shift": -1.0}, "percentiles": {"percentiles": [1, 99]}, "dtype": "dtype",
}
uri = mapping.uri


def raw(seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1)
    return np.clip(127 + (60 + 40 * seed) * noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=NORMALIZATIONS)
def verb(request, setup_folder):
    """A prediction with one way to scale raw."""

    def predict(paths, folder, **options):
        return Predict.from_dict({
            "kind": "predict", "run": "verb", "raw": paths["raw"], "setup": str(setup_folder),
            "output": str(folder / "out.zarr"), "block_shape": [6, 12, 24], "tile_shape": [6, 12, 12],
            "batch_size": 1, "precision": "fp32", "normalization": NORMALIZATIONS[request.param],
            **options,
        })

    def stored(task):
        return voxels(*(spec.path for spec in task.output_specs()))

    return Verb({"raw": ((raw(1), raw(2)), {})}, FRAME, predict, stored, (5, 11, 25), (5, 11, 5))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_prediction_refuses_raw_or_is_that_of_a_fresh_run(seed, verb, uri, tmp_path):
    Walk(verb, tmp_path, uri, seed).go()

"""Verbs that make volumes, whatever becomes of the volumes that they read."""

import numpy as np
import pytest
from scipy import ndimage

import mapping
import segmenting
from em_blocks.geometry import Frame
from em_blocks.tasks.components.clean import Clean
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.tasks.volumes.ingest import Ingest
from walking import SEEDS, Verb, Walk, voxels

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (12, 33, 41)
uri = mapping.uri


def ids(seed):
    """A few ids, each in large and small parts."""
    noise = np.random.default_rng(seed).random((6, *SHAPE))
    found = np.stack([ndimage.gaussian_filter(n, 1.4, mode="wrap") for n in noise]).argmax(axis=0)
    return np.where(found > 1, found * 1000 + 7, 0).astype("uint32")


def clean(paths, folder, **options):
    return Clean.from_dict({
        "kind": "clean", "run": "verb", "labels": paths["labels"], "min_size": 20,
        "output": str(folder / "out.zarr/cleaned"), "chunk_shape": [5, 8, 8],
        "block_shape": [5, 16, 24], **options,
    })


def ingest(paths, folder, **options):
    return Ingest.from_dict({
        "kind": "ingest", "run": "verb", "source": {"type": "volume", "path": paths["labels"]},
        "output": str(folder / "out.n5/copy"), "format": "n5", "chunk_shape": [5, 8, 8],
        "block_shape": [5, 16, 24], **options,
    })


def downsample(paths, folder, **options):
    return Downsample.from_dict({
        "kind": "downsample", "run": "verb", "input": paths["labels"], "method": "mode",
        "factors": [[1, 2, 2], [2, 2, 2]], "output": str(folder / "out.zarr/pyramid"),
        "chunk_shape": [3, 4, 4], "block_shape": [6, 8, 12], **options,
    })


def segment(paths, folder, **options):
    return Segment.from_dict({
        **segmenting.settings(paths["affinities"], folder, run="verb", num_workers=1,
                              block_shape=[5, 12, 24], tile_shape=[5, 12, 12]), **options,
    })


def scales(task):
    return voxels(*(step.output_specs()[0].path for step in task.steps()))


LABELS = {"labels": ((ids(1), ids(2)), {})}
VERBS = {
    "clean": Verb(LABELS, FRAME, clean, lambda task: voxels(task.output), (4, 11, 20), (4, 11, 10)),
    "ingest": Verb(LABELS, FRAME, ingest, lambda task: voxels(task.output), (4, 11, 20), (4, 11, 10)),
    "downsample": Verb(LABELS, FRAME, downsample, scales, (4, 11, 20), (4, 11, 10)),
}


def affinities(seed):
    values = segmenting.noisy(segmenting.neurons(SHAPE, seed=seed), seed=seed + 5)
    return np.rint(values * 255).astype(np.uint8)


def segments(task):
    return voxels(f"{task.output}/fragments", *(task.segments_path(t) for t in task.thresholds))


VERBS["segment"] = Verb(
    {"affinities": ((affinities(1), affinities(2)),
                    {"neighborhood": [list(s) for s in segmenting.NEIGHBORHOOD]})},
    FRAME, segment, segments, (4, 11, 20), (4, 11, 10),
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_refuses_an_input_or_does_with_it_what_a_fresh_run_does(name, seed, uri, tmp_path):
    Walk(VERBS[name], tmp_path, uri, seed).go()

"""Painted mitochondria, cut into slabs: how many of them are one object again."""

import os
from pathlib import Path

import cc3d
import numpy as np
import pytest
from PIL import Image

from em_blocks.geometry import Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.linking.link_slabs import LinkSlabs
from em_blocks.volumes import Volume

DATA = Path(os.environ.get("EM_BLOCKS_DATA", Path(__file__).parents[4] / "shared" / "data"))
FOLDER = DATA / "vnc_stack1/mitochondria"
DEPTH = 5

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no real volumes at {DATA} (set EM_BLOCKS_DATA to their folder)"
)


@pytest.fixture(scope="module")
def painted():
    """Objects of 15 sections: components of at least 500 voxels."""
    mask = np.stack([np.asarray(Image.open(file)) for file in sorted(FOLDER.glob("*.png"))]) > 0
    return cc3d.dust(cc3d.connected_components(mask).astype("uint32"), threshold=500)


@pytest.fixture(scope="module")
def slabs(painted, tmp_path_factory):
    """Three slabs, each labelled for itself."""
    folder, paths = tmp_path_factory.mktemp("slabs"), []
    for z in range(0, len(painted), DEPTH):
        ids = cc3d.connected_components(painted[z:z + DEPTH]).astype("uint32")
        made = Volume.create(
            str(folder / f"z{z}.zarr/labels"), shape=ids.shape, dtype="uint32",
            frame=Frame((50, 4.6, 4.6), (50.0 * z, 0, 0)), chunk_shape=(DEPTH, 256, 256),
        )
        made.write(made.box, ids)
        paths.append(made.path)
    return paths


def linked(slabs, folder, **options):
    task = LinkSlabs(
        kind="link_slabs", run="vnc", slabs=slabs, output=str(folder / "o.zarr/linked"),
        chunk_shape=(DEPTH, 256, 256), block_shape=(20, 512, 1024), **options,
    )
    for step in task.steps():
        for spec in step.output_specs():
            spec.create(step.grid(), "fingerprint")
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                process(block, BlockReport())
    return Volume.open(task.output)[...]


@pytest.mark.parametrize(
    ("options", "whole"),
    [({"criterion": "iou", "threshold": 0.25}, 35), ({"criterion": "min", "threshold": 0.25}, 38)],
    ids=["iou", "min"],
)
def test_most_of_38_painted_mitochondria_are_one_object_and_no_two_are_merged(
    painted, slabs, tmp_path, options, whole
):
    found = linked(slabs, tmp_path, **options)
    np.testing.assert_array_equal(found > 0, painted > 0)
    pairs = np.unique(np.stack([painted[painted > 0], found[painted > 0]], axis=1), axis=0)
    n_objects = np.unique(pairs[:, 0], return_counts=True)[1]
    assert (len(n_objects), int((n_objects == 1).sum())) == (38, whole)
    assert len(np.unique(pairs[:, 1])) == len(pairs)  # of every object of the result, one

"""Clusters of embeddings by blocks, and their way to objects of the whole volume."""

import numpy as np
import pytest
from rich.console import Console

from blockwise import assert_retry_equals_once, assert_same_result, run, stored_files
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.kernels.instances.embeddings import cluster_embeddings
from em_blocks.outputs import RunContext
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.instances.cluster_embeddings import ClusterEmbeddings
from em_blocks.tasks.linking.link_slabs import LinkSlabs
from em_blocks.volumes import Volume

pytest.importorskip("sklearn")

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE, BLOCK = (8, 48, 64), (4, 24, 32)


def scene():
    """Three objects in a row that touch, over several blocks, and one below them in no other."""
    labels = np.zeros(SHAPE, np.uint32)
    labels[1:7, 4:30, 3:20], labels[1:7, 4:30, 20:44], labels[1:7, 4:30, 44:60] = 1, 2, 3
    labels[2:4, 36:46, 36:56] = 4
    vectors = np.array([[9, 9, 9], [0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], np.float32)
    noise = np.random.default_rng(5).normal(0, 0.1, (3, *SHAPE))
    return labels, (np.moveaxis(vectors[labels], -1, 0) + noise).astype(np.float32)


@pytest.fixture
def data(tmp_path):
    labels, vectors = scene()
    for name, values, dtype in (("e", vectors, "float16"), ("mask", labels > 0, "uint8")):
        volume = Volume.create(
            f"{tmp_path}/in.zarr/{name}", shape=SHAPE, dtype=dtype, frame=FRAME, chunk_shape=(4, 16, 16),
            channels=3 if name == "e" else None,
        )
        volume.write(volume.box, values.astype(dtype))
    return tmp_path


def clusters(data, name="a", **options):
    return ClusterEmbeddings.from_dict({
        "kind": "cluster_embeddings", "run": "all", "embedding": f"{data}/in.zarr/e",
        "mask": f"{data}/in.zarr/mask", "output": f"{data}/{name}/o.zarr/clusters", "min_size": 8,
        "chunk_shape": [4, 8, 8], "block_shape": BLOCK, **options,
    })


def done(task):
    task.check()
    for spec in task.output_specs():
        spec.create(task.grid(), "fingerprint")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    volume = Volume.open(task.output)
    return volume.read(volume.box)


def same_objects(found, labels):
    pairs = np.unique(np.stack([found.ravel(), labels.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def test_every_block_has_the_clusters_of_its_own_voxels(data):
    task, (labels, vectors) = clusters(data), scene()
    found = done(task)
    assert found.dtype == np.uint32
    for block in task.grid().blocks():
        here = block.write_box.slices
        expected = cluster_embeddings(
            vectors[:, *here].astype(np.float16), labels[here] > 0, min_size=8
        )
        np.testing.assert_array_equal(found[here], expected)
        assert same_objects(found[here], labels[here])


def test_linked_blocks_are_the_objects_of_the_whole_volume(data):
    task = clusters(data)
    done(task)
    link = LinkSlabs.from_dict({
        "kind": "link_slabs", "run": "linked", "slabs": [task.output], "cut": BLOCK,
        "output": f"{data}/l/o.zarr/linked", "chunk_shape": [4, 8, 8], "block_shape": [4, 24, 16],
    })
    assert all(report.ok for report in run_config(link, console=Console(quiet=True)))
    volume = Volume.open(link.output)
    assert same_objects(volume.read(volume.box), scene()[0])


def test_a_mask_of_another_voxel_size_and_a_region(data):
    coarse = Volume.create(
        f"{data}/in.zarr/coarse", shape=(8, 24, 32), dtype="uint8", chunk_shape=(8, 8, 8),
        frame=Frame((40.0, 9.2, 9.2), FRAME.offset),
    )
    labels = scene()[0]
    coarse.write(coarse.box, (labels[:, ::2, ::2] > 0).astype(np.uint8))
    roi = {"offset": [440.0, 46.0, -9.2], "shape": [160.0, 48 * 4.6, 64 * 4.6]}
    found = done(clusters(data, mask=coarse.path, roi=roi, block_shape=(4, 48, 64)))
    assert found.shape == (4, 48, 64)
    inside = np.repeat(np.repeat(labels[1:5, ::2, ::2] > 0, 2, 1), 2, 2)
    np.testing.assert_array_equal(found > 0, inside)


def test_a_retried_block_equals_one_run_once_and_workers_do_not_matter(data):
    one, two = clusters(data, "one"), clusters(data, "two", num_workers=2)
    assert run(one).ok and run(two).ok
    assert_same_result(two, one)
    assert_retry_equals_once(two, one)
    assert stored_files(one)


def test_volumes_without_vectors_are_refused(data):
    with pytest.raises(ConfigError, match="uint8 with no channels, but vectors are floats"):
        clusters(data, embedding=f"{data}/in.zarr/mask").check()
    with pytest.raises(ConfigError, match="has 3 channels; a mask is one array"):
        clusters(data, mask=f"{data}/in.zarr/e").check()


def test_a_vector_that_is_no_number_is_named_where_it_counts(data):
    volume = Volume.open(f"{data}/in.zarr/e", mode="r+")
    values = volume.read(volume.box)
    values[1, 0, 0, 0] = np.nan  # background
    volume.write(volume.box, values)
    done(clusters(data))
    values[2, 2, 40, 37] = np.inf
    volume.write(volume.box, values)
    with pytest.raises(VolumeError, match=r"voxel \(2, 40, 37\) \(zyx\)"):
        done(clusters(data, "b"))

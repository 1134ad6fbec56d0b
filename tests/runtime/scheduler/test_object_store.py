"""A run whose input and output lie in an object store."""

import numpy as np
import pytest

from blockwise import FRAME, SHAPE, add_one, block_documents, run, store_of
from em_blocks.errors import ConfigError
from em_blocks.runtime.runs.forget import forget_run, removable
from em_blocks.runtime.runs.verify import damaged_blocks
from em_blocks.tasks.places import check_places
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store


@pytest.fixture
def raw(bucket):
    volume = Volume.create(f"{bucket}/raw.zarr/raw", shape=SHAPE, dtype="uint8", frame=FRAME,
                           chunk_shape=(10, 10, 10))
    volume.write(volume.box, np.random.default_rng(0).integers(0, 256, SHAPE).astype("uint8"))
    return volume


def test_a_run_reads_from_and_writes_to_the_store(raw, bucket, tmp_path):
    task = add_one(raw, tmp_path, output=f"{bucket}/out.zarr", run_dir=str(tmp_path / "run"),
                   num_workers=2)
    assert run(task).ok
    out = Volume.open(task.output_specs()[0].path)
    np.testing.assert_array_equal(out.read(out.box), raw.read(raw.box).astype("uint16") + 1)
    assert (tmp_path / "run/summary.json").exists() and len(block_documents(task)) == 30
    assert run(task).blocks["computed"] == 0
    store.delete_folder(f"{out.path}/0/0")
    with store_of(task) as documents:
        damaged = {b.key for b, problem in damaged_blocks(task, documents) if problem}
    assert damaged and all(key.startswith("0/0/") for key in damaged)


def test_a_store_needs_a_run_dir(raw, bucket, tmp_path):
    with pytest.raises(ConfigError, match="'run_dir' must name a local folder"):
        run(add_one(raw, tmp_path, output=f"{bucket}/out.zarr"))


def test_a_forgotten_run_leaves_nothing_of_its_own_in_the_store(raw, bucket, tmp_path):
    task = add_one(raw, tmp_path, output=f"{bucket}/out.zarr", run_dir=str(tmp_path / "run"))
    assert run(task).ok
    with store_of(task) as documents:
        found = removable(documents, task)
        assert found.outputs == {f"{bucket}/out.zarr/sum": None}
        forget_run(documents, task)
    assert store.is_empty(f"{bucket}/out.zarr/sum") and Volume.open(raw.path).shape == SHAPE


def test_an_output_that_is_the_input_by_its_address_is_refused(raw, bucket, endpoint, tmp_path):
    task = add_one(raw, tmp_path, output=f"{bucket}/out.zarr", run_dir=str(tmp_path / "run"))
    address = task.output_specs()[0].path.replace("s3:/", endpoint)
    with pytest.raises(ConfigError, match="is the input 'raw'"):
        check_places(task.model_copy(update={"raw": address}))

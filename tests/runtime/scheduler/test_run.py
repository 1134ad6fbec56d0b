"""The runtime: what is done, what is left, and how honestly it says so."""

import json

import numpy as np
import pytest

from blockwise import (
    add_one,
    assert_one_block_equals_many,
    assert_retry_equals_once,
    assert_same_result,
    block_documents,
    make_raw,
    run,
    start_in_background,
    store_of,
    stored_files,
    wait_for,
)
from em_blocks.errors import (
    BlockAlignmentError,
    ConfigError,
    FingerprintMismatchError,
    LeaseHeldError,
    RefusedError,
)
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.runs.verify import damaged_blocks, requeue_damaged
from em_blocks.volumes import Volume


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


def test_every_voxel_is_computed_and_the_summary_agrees_with_the_database(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", num_workers=2)
    report = run(task)
    assert report.ok and report.exit_code == 0
    out = Volume.open(task.output_specs()[0].path)
    np.testing.assert_array_equal(out.read(out.box), raw.read(raw.box).astype("uint16") + 1)
    assert out.frame == raw.frame
    documents = block_documents(task)
    assert len(documents) == report.blocks["done"] == report.blocks["total"] == 2 * 3 * 5
    summary = json.loads((task.home / "summary.json").read_text())
    assert summary["blocks"] == report.blocks and summary["state"] == "done"
    one = documents["sum/1/2/4"]
    assert one["offset"] == pytest.approx([800.0, 138.0, 193.2])
    assert one["shape"] == [10, 10, 10] and one["attempts"] == 1
    assert set(one["seconds"]) == {"read", "compute", "write"}


def test_a_repeated_command_computes_nothing(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    before = stored_files(task)
    report = run(task)
    assert report.ok and report.blocks["computed"] == 0 and report.blocks["skipped"] == 30
    assert stored_files(task) == before


def test_one_block_equals_many(raw, tmp_path):
    def make(shape, name):
        return add_one(raw, tmp_path / name, block_shape=shape)

    assert_one_block_equals_many(make, [(5, 10, 20), (10, 30, 50)], (20, 30, 50))


def test_a_retried_block_equals_one_run_once(raw, tmp_path):
    assert_retry_equals_once(add_one(raw, tmp_path / "a"), add_one(raw, tmp_path / "b"))


def test_border_blocks_are_cut_not_dropped(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", block_shape=(15, 20, 20))
    assert run(task).ok
    shapes = {tuple(d["shape"]) for d in block_documents(task).values()}
    assert shapes == {(z, y, x) for z in (15, 5) for y in (20, 10) for x in (20, 10)}


def test_a_changed_config_is_refused_with_the_differing_fields(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    before = stored_files(task)
    with pytest.raises(FingerprintMismatchError, match=r"config\.add: 1 -> 2") as caught:
        run(task.model_copy(update={"add": 2}))
    assert caught.value.exit_code == 3
    with pytest.raises(FingerprintMismatchError, match="block_shape"):
        run(task.model_copy(update={"block_shape": (10, 10, 50)}))
    assert stored_files(task) == before


def test_overwrite_starts_again_and_adopt_keeps_what_is_done(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    other = task.model_copy(update={"add": 2})
    report = run(other, adopt=True)
    assert report.ok and report.blocks["computed"] == 0
    report = run(other.model_copy(update={"add": 3}), overwrite=True)
    assert report.ok and report.blocks["computed"] == 30
    out = Volume.open(task.output_specs()[0].path)
    np.testing.assert_array_equal(out.read(out.box), raw.read(raw.box).astype("uint16") + 3)


def test_operational_settings_may_change_between_starts(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    report = run(task.model_copy(update={"num_workers": 2, "block_timeout_s": 7.0}))
    assert report.ok and report.blocks["computed"] == 0


def test_a_second_scheduler_is_refused_while_the_first_lives(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", sleep_s=0.3)
    first = start_in_background(task, tmp_path)
    try:
        wait_for(lambda: (task.home / "db/server.json").exists())
        wait_for(lambda: _running(task))
        with pytest.raises(LeaseHeldError, match=rf":{first.pid}:.*heartbeat was \d+ s ago") as e:
            run(task)
        assert e.value.exit_code == 3
    finally:
        assert first.wait(60) == 0
    assert run(task).blocks["computed"] == 0


def _running(task):
    with store_of(task) as store:
        document = store.load()
        return document is not None and document["state"] == "running"


def test_sigterm_ends_in_order_and_the_run_resumes(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", sleep_s=0.2)
    process = start_in_background(task, tmp_path)
    wait_for(lambda: (task.home / "db/server.json").exists())
    wait_for(lambda: _done(task) >= 3)
    process.terminate()
    assert process.wait(60) == 1
    with store_of(task) as store:
        assert store.load()["state"] == "stopped"
        before = store.counts()["done"]
    assert 3 <= before < 30
    report = run(task.model_copy(update={"sleep_s": 0.0}))
    assert report.ok and report.blocks["computed"] == 30 - before


def _done(task):
    with store_of(task) as store:
        return store.counts()["done"]


def test_masked_blocks_are_not_computed(raw, tmp_path):
    from em_blocks.geometry import Frame

    # A coarse mask, whose voxels of 400 x 92 x 92 nm do not match the blocks of 400 x 46 x 46 nm.
    mask = Volume.create(
        str(tmp_path / "mask.zarr/mask"), shape=(2, 2, 3), dtype="uint8",
        frame=Frame((400.0, 92.0, 92.0), raw.frame.offset), chunk_shape=(2, 2, 3),
    )
    values = np.zeros((2, 2, 3), "uint8")
    values[0, 0, 0] = values[1, 1, 2] = 1
    mask.write(mask.box, values)
    task = add_one(raw, tmp_path / "a", mask=mask.path)
    report = run(task)
    assert report.ok
    assert sorted(block_documents(task)) == [
        "sum/0/0/0", "sum/0/0/1", "sum/0/1/0", "sum/0/1/1", "sum/1/2/4",
    ]
    assert report.blocks["masked"] == 25 and report.blocks["done"] == 5
    with store_of(task) as store:
        status = run_status(store)
    assert status["blocks"] == {"total": 30, "done": 5, "failed": 0, "quarantined": 0,
                                "masked": 25, "running": 0}


def test_a_mask_that_hides_everything_is_an_error(raw, tmp_path):
    mask = Volume.create(str(tmp_path / "mask.zarr/mask"), shape=raw.shape, dtype="uint8",
                         frame=raw.frame, chunk_shape=raw.shape)
    with pytest.raises(ConfigError, match="0 in every block"):
        run(add_one(raw, tmp_path / "a", mask=mask.path))
    assert not (tmp_path / "a").exists()


def test_a_block_that_cuts_chunks_is_refused_before_anything_is_written(raw, tmp_path):
    with pytest.raises(BlockAlignmentError, match=r"Use block_shape \(10, 10, 10\)"):
        run(add_one(raw, tmp_path / "a", block_shape=(12, 10, 10)))
    assert not (tmp_path / "a").exists()


def test_a_foreign_output_is_not_overwritten(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    Volume.create(task.output_specs()[0].path, shape=raw.shape, dtype="uint16", frame=raw.frame,
                  chunk_shape=(5, 10, 10))
    for options in ({}, {"overwrite": True}, {"adopt": True}):
        with pytest.raises(RefusedError, match="no run 'sum' in the database made it"):
            run(task, **options)
    assert Volume.open(task.output_specs()[0].path).shape == raw.shape


def test_a_lost_output_is_noticed(raw, tmp_path):
    import shutil

    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    shutil.rmtree(task.output)
    with pytest.raises(RefusedError, match="does not exist"):
        run(task)


def test_a_moved_run_folder_resumes(raw, tmp_path):
    task = add_one(raw, tmp_path / "a")
    assert run(task).ok
    (tmp_path / "a").rename(tmp_path / "b")
    report = run(add_one(raw, tmp_path / "b"))
    assert report.ok and report.blocks["computed"] == 0


def test_an_unwritable_or_full_disk_is_refused(raw, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="cannot be written"):
        run(add_one(raw, raw_file(tmp_path) / "a"))
    import collections

    usage = collections.namedtuple("usage", "total used free")(10, 10, 1000)
    monkeypatch.setattr("em_blocks.runtime.runs.preflight.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"too small.*1e-06 GB are free"):
        run(add_one(raw, tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def raw_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    return path


def test_verify_finds_damaged_and_missing_blocks_and_the_next_run_repairs_them(raw, tmp_path):
    task, undisturbed = add_one(raw, tmp_path / "a"), add_one(raw, tmp_path / "b")
    assert run(task).ok and run(undisturbed).ok
    chunks = sorted(p for p in tmp_path.glob("a/out.zarr/sum/*/*/*") if p.is_file())
    chunks[0].unlink()
    chunks[-1].write_bytes(chunks[-1].read_bytes()[:-7])
    swapped = chunks[len(chunks) // 2], chunks[len(chunks) // 2 + 1]
    swapped[0].write_bytes(swapped[1].read_bytes())
    with store_of(task) as store:
        found = {b.key: problem for b, problem in damaged_blocks(task, store) if problem}
        assert len(found) == 3
        assert any(chunks[-1].name in problem for problem in found.values())
        for block, problem in list(damaged_blocks(task, store)):
            if problem:
                requeue_damaged(store, block, problem)
    report = run(task)
    assert report.ok and report.blocks["computed"] == 3
    assert_same_result(task, undisturbed)


def test_interrupted_while_it_measures_a_run_ends_in_order_and_resumes(raw, tmp_path, monkeypatch):
    task = add_one(raw, tmp_path)

    def interrupted(self, earlier=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(task), "measure", interrupted)
        report = run(task)
    assert (report.state, report.reason, report.exit_code) == ("stopped", "interrupted", 1)
    with store_of(task) as store:
        assert store.load()["state"] == "stopped" and store.load()["lease"]["owner"] is None
    assert run(task).ok

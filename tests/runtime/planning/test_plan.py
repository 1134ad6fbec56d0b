"""What `em-blocks plan` says of a run, and that it leaves nothing behind."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from blockwise import FRAME, add_one, make_raw, run, store_of
from em_blocks.cli.main import main
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.runtime.planning.better_block import better_block
from em_blocks.runtime.planning.figures import MEASURED, UNCOMPRESSED
from em_blocks.runtime.planning.forecast import StepCost, StepWork, cost_of, wall_seconds
from em_blocks.runtime.planning.plan import _ways as plan_ways
from em_blocks.runtime.planning.plan import plan
from em_blocks.runtime.planning.probe_pool import BlockSample
from em_blocks.runtime.planning.small_copy import small_copy
from em_blocks.runtime.planning.text import plan_text
from em_blocks.runtime.planning.trial import try_blocks
from em_blocks.volumes import Volume
from segmenting import config_file, neurons, noisy, segment, stored

KEYS = {"run", "launcher", "num_workers", "cpus_per_worker", "gpus", "probed", "steps", "total",
        "better_block", "notes"}


@pytest.fixture(scope="module")
def affinities(tmp_path_factory):
    return stored(noisy(neurons()), tmp_path_factory.mktemp("affinities"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("raw"))


def files(folder):
    return sorted(folder.rglob("*"))


def mask_of_half(folder):
    """0 in the first ten of twenty sections."""
    mask = Volume.create(str(folder / "mask.zarr/mask"), shape=(2, 3, 5), dtype="uint8",
                         frame=Frame((400.0, 46.0, 46.0), FRAME.offset), chunk_shape=(2, 3, 5))
    values = np.ones(mask.shape, np.uint8)
    values[0] = 0
    mask.write(mask.box, values)
    return mask.path


# -- what is left ---------------------------------------------------------------------------


def test_masked_and_done_blocks_are_not_to_do(raw, tmp_path):
    task = add_one(raw, tmp_path, mask=mask_of_half(tmp_path))
    (step,) = plan(task, probe=False).steps
    assert (step.blocks, step.masked, step.done, step.left) == (30, 15, 0, 15)
    assert run(task).ok
    with store_of(task) as store:
        store.blocks.delete_many({"run": task.run, "index.2": 4})
        store.blocks.update_one({"_id": f"{task.run}/1/0/0"}, {"$set": {"state": "quarantined"}})
    found = plan(task, probe=False)
    (step,) = found.steps
    assert (step.masked, step.done, step.quarantined, step.left) == (15, 11, 1, 3)
    assert found.total.left == 3 and "retry" in plan_text(found)


def test_nothing_left_takes_no_blocks_and_no_probe(raw, tmp_path):
    task = add_one(raw, tmp_path)
    assert run(task).ok
    found = plan(task, probe=True)
    assert found.total.left == 0 and found.steps[0].wall_s == 0
    assert found.steps[0].bytes_in == found.total.bytes_in == 0
    assert found.total.wall_s == found.total.fixed_s > 0
    assert found.better_block is None


def test_ways_that_were_timed_are_a_table_fastest_first(raw, tmp_path):
    def timing(precision, tile, rate):
        return {"precision": precision, "tile_shape": tile, "batch_size": 1, "voxels_per_s": rate}

    measured = {"precision": "fp32", "tile_shape": [64, 128, 128], "batch_size": 1, "timings": [
        timing("fp32", [64, 64, 64], 146000), timing("fp32", [64, 128, 128], 219000),
        timing("bf16", [64, 128, 128], 222000),
    ]}
    found = plan(add_one(raw, tmp_path), probe=False)
    assert found.steps[0].ways == []
    ways = plan_ways(measured)
    assert [way["chosen"] for way in ways] == [False, True, False]
    lines = plan_text(replace(found, steps=[replace(found.steps[0], ways=ways)])).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("network pass"))
    assert [line.split() for line in lines[start : start + 4]] == [
        ["network", "pass", "tile", "batch", "Mvoxel/s", "per", "worker"],
        ["bf16", "64x128x128", "1", "0.222"],
        ["fp32", "(chosen)", "64x128x128", "1", "0.219"],
        ["fp32", "64x64x64", "1", "0.146"],
    ]


def test_a_run_with_other_settings_is_said_to_be_refused(raw, tmp_path):
    assert run(add_one(raw, tmp_path)).ok
    found = plan(add_one(raw, tmp_path, add=2), probe=False)
    assert found.steps[0].left == 30 and "refused" in found.steps[0].note


def test_a_server_that_does_not_answer_is_an_error(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 300)
    config = tmp_path / "job.json"
    config.write_text(json.dumps({
        "kind": "downsample", "run": "p", "input": raw.path, "output": str(tmp_path / "p.zarr/p"),
        "method": "mean", "levels": 1, "chunk_shape": [10, 10, 10], "db_host": "127.0.0.1:1",
    }))
    before = files(tmp_path)
    result = CliRunner().invoke(main, ["plan", str(config)])
    assert result.exit_code == 2 and "127.0.0.1" in result.stderr
    assert result.stderr.startswith("Error: ") and files(tmp_path) == before


# -- the probe ------------------------------------------------------------------------------


def test_a_probe_measures_a_step_and_writes_nothing_that_lasts(raw, tmp_path):
    before = files(tmp_path)
    found = plan(add_one(raw, tmp_path, num_workers=2, sleep_s=0.05), probe=True)
    assert files(tmp_path) == before
    (step,) = found.steps
    assert 0.05 < step.seconds_per_block < 5 and step.memory_mb > 30 and step.worker_start_s >= 0
    assert step.wall_s > 0.05 * 30 / 2
    assert found.total.wall_s > found.total.fixed_s > 0
    cores = found.total.core_hours * 3600 / found.total.wall_s
    assert cores == pytest.approx(round(cores)) and cores >= 1


def test_bytes_are_those_of_files_once_blocks_were_tried(raw, tmp_path):
    task = add_one(raw, tmp_path)
    (guessed,), (measured,) = (plan(task, probe=probe).steps for probe in (False, True))
    n = 20 * 30 * 50
    assert (guessed.bytes_in, guessed.bytes_in_are) == (n, UNCOMPRESSED)
    assert (guessed.bytes_out, guessed.bytes_out_are) == (2 * n, UNCOMPRESSED)
    assert measured.bytes_in_are == measured.bytes_out_are == MEASURED
    # Random bytes cannot be compressed; small files of metadata come on top.
    assert n < measured.bytes_in < 4 * n and n < measured.bytes_out < 4 * n


def test_a_failing_probe_is_one_paragraph(raw, tmp_path):
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=r"block 0/0/0 of run 'sum' failed.*poison") as error:
        plan(add_one(raw, tmp_path, faults={"0/0/0": "raise"}), probe=True)
    assert "\n" not in str(error.value) and files(tmp_path) == before


def test_a_probe_that_dies_is_one_paragraph(raw, tmp_path):
    with pytest.raises(ConfigError, match=r"probe.*the process ended \(-9\)"):
        plan(add_one(raw, tmp_path, faults={"0/0/0": "kill"}), probe=True)
    with pytest.raises(ConfigError, match="no such device"):
        plan(add_one(raw, tmp_path, faults={"start": "raise"}), probe=True)


# -- jobs of several steps ------------------------------------------------------------------


def test_all_steps_of_a_segmentation_are_tried_and_nothing_stays(affinities, tmp_path):
    config = config_file(affinities, tmp_path, thresholds=[0.5])
    before = files(tmp_path)
    result = CliRunner().invoke(main, ["plan", str(config), "--json"])
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == before
    found = json.loads(result.stdout)
    assert found.keys() == KEYS
    names = ["fragments", "edges", "forest0", "forest1", "lut1_0.5", "lut0_0.5", "segments_0.5"]
    assert [step["run"] for step in found["steps"]] == [f"seg.{name}" for name in names]
    for step in found["steps"]:
        assert step["seconds_per_block"] > 0 and step["memory_mb"] > 30 and step["wall_s"] > 0
        assert step["bytes_in"] > 0 and step["bytes_out"] > 0 and step["note"] is None
    assert found["total"]["wall_s"] > found["total"]["fixed_s"]
    assert found["total"]["left"] == sum(step["blocks"] for step in found["steps"])


def test_one_step_can_be_planned_alone(affinities, tmp_path):
    config = config_file(affinities, tmp_path, thresholds=[0.5])
    plain = ["plan", str(config), "--no-probe", "--json", "--step"]
    found = json.loads(CliRunner().invoke(main, [*plain, "edges"]).stdout)
    assert [step["run"] for step in found["steps"]] == ["seg.edges"]
    assert found["total"]["wall_s"] is None and not found["probed"]
    result = CliRunner().invoke(main, [*plain, "edge"])
    assert result.exit_code == 2 and "fragments, edges, forest0" in result.stderr


def test_a_small_copy_holds_what_the_volume_holds_there(affinities, tmp_path):
    config = segment(affinities, tmp_path)
    grid = config.steps()[0].grid()
    wanted = np.argwhere(np.ones(grid.shape, bool))
    small = small_copy(config, grid, wanted, blocks=3, folder=tmp_path / "small")
    source, copy = Volume.open(config.affinities), Volume.open(small.affinities)
    np.testing.assert_array_equal(copy.read(copy.box), source.read(copy.roi))
    assert copy.attributes["neighborhood"] == source.attributes["neighborhood"]
    assert small.steps()[0].grid().n_blocks >= 3
    assert {s.run for s in small.steps()} <= {s.run for s in config.steps()}
    for step in small.steps():
        assert all(spec.path.startswith(str(tmp_path)) for spec in step.output_specs())


def test_a_full_scratch_disk_is_said_before_anything_is_copied(affinities, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 1000))
    config = segment(affinities, tmp_path)
    grid = config.steps()[0].grid()
    with pytest.raises(ConfigError, match="TMPDIR"):
        small_copy(config, grid, np.argwhere(np.ones(grid.shape, bool)), blocks=3,
                   folder=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_what_cannot_be_tried_is_said(raw, tmp_path):
    """Levels of a pyramid are measured as far as they can be, and borrowed above."""
    from em_blocks.tasks.volumes.downsample import Downsample

    pyramid = Downsample.from_dict({
        "kind": "downsample", "run": "p", "input": raw.path, "output": str(tmp_path / "p.zarr/p"),
        "method": "mean", "levels": 2, "chunk_shape": [5, 5, 5],
    })
    todo = {step.run: np.ones(step.grid().shape, bool) for step in pyramid.steps()}
    (tmp_path / "scratch").mkdir()
    trial = try_blocks(pyramid, todo, uri="", folder=tmp_path / "scratch")
    assert trial.costs.keys() == {"p.s0", "p.s1", "p.s2"} and not trial.unknown
    assert trial.costs["p.s2"] == trial.costs["p.s1"] != trial.costs["p.s0"]


# -- from blocks to time --------------------------------------------------------------------


def sample(n, process=0, voxels=1000, seconds=1.0, first=3.0):
    """The n-th block of a process, one after the other."""
    end = first + n * seconds
    return BlockSample(process, voxels, 0.0 if n == 0 else end - seconds, end, 0.2, 300, 100, 0, 0)


def cost(**values):
    known = {"start_s": 0.0, "block_s": 0.0, "voxel_s": 0.001, "read_s": 0.0, "largest": 1000,
             "bytes_in": None, "bytes_out": None, "memory_mb": 300, "memory_before_mb": 100}
    return StepCost(**{**known, **values})


def work(n, **values):
    grid = BlockGrid(FRAME, (10, 10, 10 * n), (10, 10, 10))
    return StepWork(grid, np.ones(grid.shape, bool), cost(**values))


def test_the_first_block_of_a_worker_is_the_start_and_not_the_rule():
    found = cost_of([sample(n, process) for process in (0, 1) for n in range(3)], concurrent=1)
    assert found.seconds(1000) == pytest.approx(1.0) and found.start_s == pytest.approx(2.0)
    assert found.peak_mb(2000) == 500


def test_of_blocks_that_are_held_at_a_time_their_rate_counts():
    samples = [replace(sample(n), begin=0.0) for n in range(4)]
    assert cost_of(samples, concurrent=3).seconds(1000) == pytest.approx(1.0)


def test_a_cost_per_block_is_told_from_one_per_voxel():
    sizes = [1000, 1000, 500, 250, 1000, 500]
    end, samples = 0.0, []
    for voxels in sizes:
        begin, end = end, end + 1 + voxels / 1000
        samples.append(BlockSample(0, voxels, begin, end, 0.0, 300, 100, 0, 0))
    found = cost_of(samples, concurrent=1)
    assert found.block_s == pytest.approx(1.0) and found.voxel_s == pytest.approx(0.001)
    assert found.start_s == pytest.approx(0.0, abs=1e-9)


def test_workers_share_blocks_and_start_once():
    assert wall_seconds([work(8)], 1) == pytest.approx(8)
    assert wall_seconds([work(8)], 2) == pytest.approx(4)
    assert wall_seconds([work(9)], 2) == pytest.approx(5)  # one has nothing to do at the end
    assert wall_seconds([work(8, start_s=3.0)], 2) == pytest.approx(7)
    assert wall_seconds([work(20_000)], 2) == pytest.approx(10_000)
    assert wall_seconds([work(200_001)], 2) == pytest.approx(100_001)


def test_a_step_of_the_same_blocks_begins_beside_the_end_of_the_one_before():
    """Two steps of three blocks for two workers."""
    assert wall_seconds([work(3), work(3)], 2) == pytest.approx(3)


def test_a_step_of_super_blocks_waits_for_all_of_the_step_before():
    """Three blocks for two workers, then one of their size that needs all of them."""
    assert wall_seconds([work(3), work(1)], 2) == pytest.approx(3)
    assert wall_seconds([work(3, start_s=5.0), work(1, start_s=1.0)], 2) == pytest.approx(9)


# -- a better block -------------------------------------------------------------------------


def test_fewer_blocks_than_workers_should_be_smaller(raw, tmp_path):
    task = add_one(raw, tmp_path, block_shape=(20, 30, 50), num_workers=2)
    works = {task.run: StepWork(task.grid(), np.ones((1, 1, 1), bool), cost())}
    found = better_block(task, [task], works, probed=True, begun=False)
    assert np.prod(found.block_shape) < 30_000 and found.wall_s < 0.6 * found.now_s
    assert all(b % c == 0 for b, c in zip(found.block_shape, task.chunk_shape, strict=True))
    assert better_block(task, [task], works, probed=True, begun=True) is None


def test_a_fixed_cost_of_blocks_asks_for_larger_ones_while_workers_have_four(raw, tmp_path):
    task = add_one(raw, tmp_path, block_shape=(5, 10, 10), num_workers=2)
    grid = task.grid()
    works = {task.run: StepWork(grid, np.ones(grid.shape, bool), cost(block_s=1.0, voxel_s=1e-6))}
    found = better_block(task, [task], works, probed=True, begun=False)
    larger = BlockGrid(grid.frame, grid.volume_shape, found.block_shape)
    assert 8 <= larger.n_blocks < grid.n_blocks and found.wall_s < found.now_s / 2
    huge = {task.run: StepWork(grid, works[task.run].todo, cost(block_s=1.0, memory_mb=10**9))}
    assert better_block(task, [task], huge, probed=True, begun=False) is None

"""`em-blocks segment` and the other verbs on its steps, with real workers and database; faults."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from blockwise import store_of, stored_files, wait_for, worker_pids
from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.preflight import check_task
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.segmentation.relabel import Relabel
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables
from segmenting import (
    assert_same_segments,
    config_file,
    here,
    neurons,
    noisy,
    segment,
    segments,
    stored,
)

ONE_LEVEL = {"super_block": [4, 2, 3], "thresholds": [0.5]}
STEPS = ["fragments", "edges", "forest0", "forest1", "lut1_0.5", "lut0_0.5", "segments_0.5"]


def call(*arguments):
    before = dict(os.environ)  # `replay` sets threads for its own process, which is ours here
    try:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
    finally:
        os.environ.clear()
        os.environ.update(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def computed(result) -> dict[str, int]:
    """Blocks that a command computed, by step."""
    reports = json.loads(result.stdout)
    return {report["run"].removeprefix("seg."): report["blocks"]["computed"] for report in reports}


@pytest.fixture(scope="module")
def affinities(tmp_path_factory):
    return stored(noisy(neurons()), tmp_path_factory.mktemp("affinities"))


@pytest.fixture(scope="module")
def config(affinities, tmp_path_factory):
    """Config of a segmentation of two levels that was done by one worker after the other."""
    folder = tmp_path_factory.mktemp("done")
    path = config_file(affinities, folder, thresholds=[0.5], num_workers=1)
    planned = call("plan", path)
    assert planned.exit_code == 0 and all(f"\n{name} " in planned.stdout for name in STEPS)
    assert "wall time           about" in planned.stdout
    dry = call("segment", path, "--dry-run")
    assert dry.exit_code == 0 and dry.stdout.count("blocks  ") == len(STEPS)
    assert list(folder.iterdir()) == [path]
    assert call("segment", path).exit_code == 0
    return path


@pytest.fixture(scope="module")
def undisturbed(affinities, tmp_path_factory):
    """Of one level, done in this process."""
    task = segment(affinities, tmp_path_factory.mktemp("undisturbed"), **ONE_LEVEL)
    here(task)
    return task


def task_of(config: Path) -> Segment:
    return Segment.from_file(config)


def forget_blocks(task) -> int:
    """Remove the done documents of the first layer of blocks of a step."""
    with store_of(task) as store:
        return store.blocks.delete_many({"run": task.run, "index.0": 0}).deleted_count


def assert_whole(task, reference):
    """Every block done once, and the same segmentation."""
    assert_same_segments(task, reference)
    for step in task.steps():
        with store_of(step) as store:
            documents = list(store.documents())
        assert {d["state"] for d in documents} == {"done"}
        assert len(documents) == len({d["_id"] for d in documents}) == step.grid().n_blocks


# -- one segmentation, all verbs ------------------------------------------------------------


def test_workers_make_what_one_process_makes(config, undisturbed):
    assert_whole(task_of(config), undisturbed)


def test_status_names_every_step(config):
    text = call("status", config).stdout.splitlines()
    assert [line.split()[0] for line in text] == [f"seg.{name}" for name in STEPS]
    assert "is done: 24 total, 24 done, 0 failed" in text[0]
    found = json.loads(call("status", config, "--json").stdout)
    assert [s["blocks"]["done"] for s in found] == [24, 24, 4, 1, 1, 4, 24]
    one = json.loads(call("status", config, "--json", "--step", "forest0").stdout)
    assert one == found[2]
    wrong = call("status", config, "--step", "trees")
    assert wrong.exit_code == 2 and "its steps are fragments, edges, forest0" in wrong.stderr


@pytest.mark.parametrize("step", STEPS)
def test_replay_of_any_step_equals_the_run(config, step):
    before = stored_files(task_of(config))
    result = call("replay", config, "0/0/0", "--step", step)
    assert result.exit_code == 0 and "equals the one in the database" in result.stdout
    assert stored_files(task_of(config)) == before


def test_replay_needs_the_name_of_a_step(config):
    result = call("replay", config, "0/0/0")
    assert result.exit_code == 2 and "name one by --step: fragments, edges, forest0" in result.stderr


def test_another_threshold_needs_only_its_own_table_and_volume(config, affinities, tmp_path):
    result = call("segment", config, "--threshold", 0.3, "--json")
    assert result.exit_code == 0
    assert computed(result) == {
        **dict.fromkeys(STEPS[:4], 0), "lut1_0.3": 1, "lut0_0.3": 4, "segments_0.3": 24,
    }
    other = segment(affinities, tmp_path, thresholds=[0.3], **{k: ONE_LEVEL[k] for k in ["super_block"]})
    here(other)
    np.testing.assert_array_equal(segments(task_of(config), 0.3), segments(other, 0.3))
    beyond = call("segment", config, "--threshold", 0.99)
    assert beyond.exit_code == 2 and "lower 'lowest_affinity'" in beyond.stderr


def test_blocks_that_are_forgotten_are_done_again_and_change_nothing(config):
    task = task_of(config)
    before = stored_files(task)
    removed = {step.run.removeprefix("seg."): forget_blocks(step) for step in task.steps()}
    again = computed(call("segment", config, "--json"))
    assert min(removed.values()) > 0
    # What reads them is done again too; as all comes out as it was, it ends there.
    assert all(again[step] >= n for step, n in removed.items())
    assert removed["segments_0.5"] < again["segments_0.5"] < 24
    assert stored_files(task) == before


def test_what_is_damaged_is_found_by_verify_and_made_again(config):
    task = task_of(config)
    before = stored_files(task)
    assert call("verify", config).exit_code == 0
    damaged = ["fragments/1/1/1", "graph/forest/0/rest/1/0/1.parquet", "segments/0.5/0/0/2"]
    for name, change in zip(damaged, (b"", None, b"nonsense"), strict=True):
        path = Path(task.output, name)
        path.unlink() if change is None else path.write_bytes(change)
    found = call("verify", config, "--json")
    assert found.exit_code == 1
    runs = [(d["run"], d["block"]) for d in json.loads(found.stdout)["damaged"]]
    assert runs == [("seg.fragments", "1/0/0"), ("seg.forest0", "1/0/1"), ("seg.segments_0.5", "0/0/1")]
    again = computed(call("segment", config, "--json"))
    # The damaged ones, and what reads them and may have read the damage.
    assert (again["fragments"], again["forest0"], again["forest1"]) == (1, 2, 1)
    assert 0 < again["edges"] < 24 and 0 < again["segments_0.5"] < 24
    assert stored_files(task) == before and call("verify", config).exit_code == 0


def test_other_settings_under_the_same_name_are_refused(config):
    before = stored_files(task_of(config))
    for change in ("min_size=3", "fragments.small=16", "context=[2,5,6]"):
        result = call("segment", config, "--set", change)
        assert result.exit_code == 3 and "exists with other settings" in result.stderr
    assert stored_files(task_of(config)) == before


# -- faults ---------------------------------------------------------------------------------


def test_a_quarantined_block_leaves_later_steps_open_until_its_cause_is_gone(undisturbed, tmp_path):
    path = stored(noisy(neurons()), tmp_path)
    config = config_file(path, tmp_path, max_retries=0, **ONE_LEVEL)
    chunk = Path(path, "0/2/2/2")  # of the last blocks; checks before the start look at others
    kept = chunk.read_bytes()
    chunk.write_bytes(b"damaged")
    first = call("segment", config, "--json")
    report = json.loads(first.stdout)
    assert first.exit_code == 1 and report["run"] == "seg.fragments"
    assert report["failures"][0]["error"]["type"] == "VolumeError"
    assert path in report["failures"][0]["error"]["message"]
    done = {s["run"]: s["blocks"]["done"] for s in json.loads(call("status", config, "--json").stdout)}
    assert 0 < done["seg.edges"] < done["seg.fragments"] < 24
    assert done["seg.forest0"] == done["seg.segments_0.5"] == 0

    # The others must not be done without it, as if there were nothing.
    again = call("segment", config)
    assert again.exit_code == 1 and "em-blocks retry" in again.stdout
    found = json.loads(call("status", config, "--json").stdout)
    assert {s["run"]: s["blocks"]["done"] for s in found} == done

    chunk.write_bytes(kept)
    assert call("retry", config).exit_code == 0
    assert_whole(task_of(config), undisturbed)


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_killed_at_any_step_and_run_again_equals_undisturbed(affinities, undisturbed, tmp_path, victim):
    """kill -9 at a random step, then the command is repeated; see benchmarks/kill_trials.py."""
    config = config_file(affinities, tmp_path, **ONE_LEVEL)
    moments = {"edges": 5, "forest0": 0, "segments_0.5": 3}
    step = random.Random(victim).choice(list(moments))
    folder = {"edges": "graph/edges", "forest0": "graph/forest/0/merges"}.get(step, "segments/0.5")
    process = subprocess.Popen(
        [sys.executable, "-c", "from em_blocks.cli.main import main; main()", "segment", str(config)],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    root = Path(task_of(config).output)
    wait_for(lambda: len(list(root.glob(f"{folder}/*/*/*"))) > moments[step], timeout_s=120)
    if victim == "scheduler":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        for pid in worker_pids(process):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert call("segment", config).exit_code == 0
    assert_whole(task_of(config), undisturbed)


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["neighborhood=[[-1,0,0],[0,-1,0],[0,0,-1]]"], "was written with"),
        (["affinities=nowhere.zarr/x"], "There is no volume"),
        (["mask=nowhere.zarr/x"], "There is no volume"),
        (["affinities={segments}"], "does not say which voxels its channels join"),
        (["affinities={plain}", "neighborhood=[[-1,0,0],[0,-1,0],[0,0,-1]]"],
         "has 6 channels, but the neighborhood has 3 shifts"),
        (["affinities={plain}", "neighborhood=[[-1,0,0],[0,-1,0],[0,0,-1],[2,0,0],[0,3,0],[1,0,-3]]"],
         "has components of both signs"),
        (["affinities={plain}", "neighborhood=[[-2,0,0],[0,-1,0],[0,0,-1],[4,0,0],[0,3,0],[0,0,3]]"],
         "one shift of one voxel along z"),
        (["affinities={loud}"], "must lie in 0..1, got"),
        (["affinities={signed}"], "is int16; affinities are uint8"),
        (["thresholds=[0.5,0.3]"], "thresholds must ascend"),
        (["thresholds=[0.99]"], "beyond the end of the merge forest"),
        (["output={affinities}"], "lie in each other"),
        (["output={affinities}/seg.zarr"], "lie in each other"),
        (["output=result"], "no .zarr container"),
        (["block_shape=[5,20,24]"], "not a whole number of tiles"),
        (["chunk_shape=[5,16,16]"], "not a multiple of the chunks"),
        (["super_block=[1,1,1]"], "No level would ever hold the volume"),
        (["min_sise=3"], "min_sise"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(tmp_path, overrides, words):
    values = noisy(neurons(shape=(6, 30, 30)))
    places = {
        "affinities": stored(values, tmp_path),
        "plain": stored(values, tmp_path, "plain", neighborhood=None),
        "loud": stored(values * 2, tmp_path, "loud", dtype="float32"),
        "signed": stored(values * 100, tmp_path, "signed", dtype="int16"),
        "segments": stored(values[:1], tmp_path, "segments", neighborhood=None),
    }
    config = config_file(places["affinities"], tmp_path)
    before = sorted(tmp_path.rglob("*"))
    sets = [a for o in overrides for a in ("--set", o.format(**places))]
    for verb in ("segment", "plan"):
        result = call(verb, config, *sets)
        assert result.exit_code == 2 and words in result.stderr, result.stderr
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_values_that_no_check_sees_are_errors_of_their_blocks(tmp_path):
    """Checks look at three chunks; block by block, all are looked at."""
    values = noisy(neurons(shape=(6, 30, 70)))
    path = stored(values, tmp_path, dtype="float32")
    volume = Volume.open(path, mode="r+")
    values[:, :, :, 20:30] = np.nan
    volume.write(volume.box, values)
    config = config_file(path, tmp_path, num_workers=1, max_retries=0, context=[0, 0, 0])
    result = call("segment", config, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["blocks"]["done"] > 0 and report["blocks"]["quarantined"] > 0
    message = report["failures"][0]["error"]["message"]
    assert "must lie in 0..1, got nan" in message and "store affinities in 0..1" in message


@pytest.mark.parametrize(
    ("step", "harm", "words"),
    [
        (1, "zero", "does not hold the fragments that its table in"),
        (-1, "zero", "does not hold the fragments that its table in"),
        (1, "no table", "fragments/0/0/0.parquet is missing"),
        (2, "no table", "fragments/0/0/0.parquet is missing"),
        (2, "no edges", "edges/0/0/0.parquet is missing"),
        (-1, "no lut", "lut/0.5/0/0/0/0.parquet is missing"),
        (-1, "other lut", "are not in the look-up table"),
    ],
)
def test_what_an_earlier_step_lost_is_an_error_that_names_it(
    affinities, tmp_path, undisturbed, step, harm, words
):
    task = segment(affinities, tmp_path, **ONE_LEVEL)
    here(task)
    graph = Path(task.output, "graph")
    if harm == "zero":
        volume = Volume.open(f"{task.output}/fragments", mode="r+")
        box = task.steps()[0].grid().block((0, 0, 0)).write_box
        volume.write(box, np.zeros(box.shape, "uint64"))
    elif harm == "other lut":
        lut = BlockTables(str(graph / "lut/0.5/0"))
        lut.write("0/0/0", {name: rows[1:] for name, rows in lut.read("0/0/0").items()})
    else:
        (graph / {"no table": "fragments", "no edges": "edges", "no lut": "lut/0.5/0"}[harm]
         / "0/0/0.parquet").unlink()
    broken = task.steps()[step]
    before = stored_files(task)
    with broken.open(RunContext()) as process, pytest.raises(VolumeError, match=words):
        process(broken.grid().block((0, 0, 0)), BlockReport())
    assert stored_files(task) == before


def test_a_look_up_table_of_another_run_is_refused(config, affinities, tmp_path):
    other = segment(affinities, tmp_path, min_size=2, **ONE_LEVEL)
    here(other)
    values = {
        "kind": "relabel", "run": "r", "labels": f"{other.output}/fragments",
        "lut": f"{task_of(config).output}/graph/lut/0.5/0", "output": str(tmp_path / "out.zarr/s"),
        "block_shape": [5, 24, 24], "chunk_shape": [5, 12, 12],
    }
    with pytest.raises(ConfigError, match="was made for fragments of another run"):
        check_task(Relabel.from_dict(values))
    check_task(Relabel.from_dict({**values, "labels": f"{task_of(config).output}/fragments"}))
    with pytest.raises(ConfigError, match="There is no look-up table in"):
        check_task(Relabel.from_dict({**values, "lut": str(tmp_path / "nowhere")}))
    assert not (tmp_path / "out.zarr").exists()

"""Choosing a checkpoint: the scores are those of the validation in the training."""

import csv
import json

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner

import em_blocks as em
from em_blocks.cli.main import main
from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.evaluation.checkpoints import score_checkpoints
from em_blocks.evaluation.mask import count_here, score
from em_blocks.models.setup import Setup
from em_blocks.tasks.evaluation.count_mask import CountMask
from em_blocks.tasks.prediction.predict_checkpoints import PredictCheckpoints
from em_blocks.training.records.json_record import record_of
from em_blocks.training.run import train
from tiny_setup import tiny_config, write_setup

SHAPE, SIZE, OFFSET = (12, 64, 64), [40.0, 4.6, 4.6], [80.0, 46.0, 92.0]


def write(folder, name, values):
    array = zarr.open_group(str(folder / "data.zarr"), "a").create_dataset(name, data=values)
    array.attrs.update(voxel_size=SIZE, offset=OFFSET)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A setup trained for a few iterations, with three checkpoints; its validation has two data sets."""
    folder = tmp_path_factory.mktemp("trained")
    z, y, x = np.indices(SHAPE)
    mito = (((y // 12 + x // 18 + z // 5) % 3) == 0).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 60, SHAPE)
    write(folder, "raw", np.clip(100 + 90 * mito + noise, 0, 255).astype(np.uint8))
    write(folder, "mito", mito)
    away = np.ones(SHAPE, np.uint8)
    away[:, :, :8] = 0
    write(folder, "away", away)
    paths = {name: f"{folder}/data.zarr/{name}" for name in ("raw", "mito", "away")}
    source = {"raw": paths["raw"], "classes": {"mito": {"volume": paths["mito"]}}}
    values = tiny_config()
    values |= {"voxel_size": SIZE, "tile_shape": [4, 16, 16]}
    values["normalization"] = {"scale": 0.00784313725490196, "shift": -1.0}
    values["heads"] = {"organelles": {"kind": "classes", "classes": ["mito"]}}
    values["training"] |= {
        "sources": [source],
        "validation": [
            source | {"name": "left", "end": [5, 36, 36], "metric_masks": [paths["away"]]},
            source | {"name": "right", "begin": [5, 0, 30], "end": [11, 40, 64]},
        ],
        "augment": {"control_point_nm": [400, 100, 100], "jitter_nm": [0, 5, 5]},
        "output_shape": [4, 16, 16], "score": "organelles/mito_f1", "learning_rate": 0.02,
        "iterations": 12, "validate_every": 4, "checkpoint_every": 4, "keep": {"last": 3},
    }
    setup = write_setup(folder / "setup", values)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(Setup.from_folder(setup), setup, "a test", resume=False, go_on="")
    torch.set_num_threads(before)
    return setup


def history(setup):
    return json.loads((setup / "checkpoints/record.json").read_text())["history"]


def task_of(setup, output, **options):
    return PredictCheckpoints.from_dict({
        "kind": "predict_checkpoints", "run": "sweep", "setup": str(setup), "output": str(output),
        "run_dir": str(output), **options,
    })


def test_scores_are_those_of_the_training(trained, tmp_path):
    task = task_of(trained, tmp_path / "sweep")
    assert em.run(task, serial=True, progress=False).ok
    found = score_checkpoints(task)
    expected = history(trained)
    assert [entry["iteration"] for entry in found.entries] == [4, 8, 12]
    for ours, theirs in zip(found.entries, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in found.names:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
        sets = [row["organelles/mito_f1"] for row in theirs["data_sets"]]
        assert [row["organelles/mito_f1"] for row in ours["data_sets"]] == pytest.approx(sets, abs=1e-5)
    assert len({entry["organelles/mito_f1"] for entry in found.entries}) > 1
    record = json.loads((trained / "checkpoints/record.json").read_text())
    assert found.best["iteration"] == record["best"]["iteration"]


    check_masks(task, found)


def check_masks(task, found):
    """`evaluate mask` finds in the predictions what the training, with its own code, finds."""
    sources = json.loads((task.setup / "config.json").read_text())["training"]["validation"]
    entry = found.entries[-1]
    for box, source, row in zip(task.boxes, sources, entry["data_sets"], strict=True):
        counting = CountMask.from_dict({
            "kind": "count_mask", "run": "mask", "output": str(task.output),
            "prediction": task.volume_of(box, entry["iteration"], "organelles"), "channel": "mito",
            "truth": source["classes"]["mito"]["volume"],
            "metric_masks": source.get("metric_masks", []),
        })
        scores = score(counting, count_here(counting, counting.grid().blocks()))
        for name, value in {"f1": "dice", "jaccard": "jaccard", "recall": "recall"}.items():
            assert row[f"organelles/mito_{name}"] == pytest.approx(
                getattr(scores.everywhere, value), abs=1e-6
            )
            assert row[f"organelles/mito_{name}_metric"] == pytest.approx(
                getattr(scores.total, value), abs=1e-6
            )


def test_the_command_writes_a_table_a_picture_and_its_job(trained, tmp_path):
    output = tmp_path / "sweep"
    options = ["--output", str(output), "--iterations", "4:8:4", "--score", "organelles/balanced_ce"]
    result = CliRunner().invoke(main, ["evaluate", "checkpoints", str(trained), *options, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    values = [entry["organelles/balanced_ce"] for entry in document["checkpoints"]]
    assert values == pytest.approx([h["organelles/balanced_ce"] for h in history(trained)[:2]], abs=1e-5)
    assert document["best"] == {"iteration": [4, 8][int(np.argmin(values))], "value": min(values)}
    assert document == json.loads((output / "checkpoints.json").read_text())
    with open(output / "checkpoints.csv") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["4", "8"]
    assert (output / "checkpoints.png").stat().st_size > 5000
    noted = json.loads((trained / "checkpoints/record.json").read_text())["notes"]["checkpoints"]
    assert noted["best"] == document["best"] and noted["data"] == ["left", "right"]
    config = str(output / "config.json")
    mixed = CliRunner().invoke(main, ["evaluate", "checkpoints", config, "--iterations", "4"])
    assert mixed.exit_code == 2 and "belong to a SETUP" in mixed.output
    again = CliRunner().invoke(main, ["evaluate", "checkpoints", config])
    assert again.exit_code == 0 and "Best: iteration" in again.output
    status = CliRunner().invoke(main, ["status", str(output / "config.json")])
    assert status.exit_code == 0, status.output


def test_other_data_are_scored_where_they_are_named(trained, tmp_path):
    values = json.loads((trained / "config.json").read_text())["training"]["validation"]
    relative = {"raw": "data.zarr/raw", "classes": {"mito": {"volume": "data.zarr/mito"}}}
    data = trained.parent / "data.json"  # its paths are relative to its folder
    data.write_text(json.dumps([values[1] | relative]))
    task = task_of(trained, tmp_path / "sweep", validation=values[1:], iterations=[8])
    assert [step.run for step in task.steps()] == ["sweep.8.0_right_0"]
    assert task.boxes[0].roi.offset == pytest.approx([80 + 5 * 40, 46, 92 + 30 * 4.6])
    output = tmp_path / "other"
    arguments = [str(trained), "--data", str(data), "--iterations", "8",
                 "--output", str(output), "--json"]
    result = CliRunner().invoke(main, ["evaluate", "checkpoints", *arguments])
    assert result.exit_code == 0, result.output
    stored = PredictCheckpoints.from_file(output / "config.json").steps()
    assert [step.raw for step in stored] == [values[1]["raw"]]
    right = history(trained)[1]["data_sets"][1]["organelles/mito_f1"]
    assert json.loads(result.stdout)["best"]["value"] == pytest.approx(right, abs=1e-5)


def test_a_note_stays_when_the_training_goes_on(tmp_path):
    record = record_of(tmp_path)
    assert not record.note("checkpoints", 1) and not record.path.exists()
    record.path.parent.mkdir()
    record.start(0, {"uid": "a", "iteration": 4})
    assert record.note("checkpoints", {"best": 4}) and record.note("other", 1)
    record_of(tmp_path).checkpoint(8, tmp_path, {"uid": "a", "iteration": 8})
    assert record.read() == {
        "uid": "a", "iteration": 8, "notes": {"checkpoints": {"best": 4}, "other": 1}
    }


def test_a_training_by_its_number_gets_the_note(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BLOCKS_DB", str(tmp_path / "database"))
    imported = CliRunner().invoke(main, ["runs", "import", str(trained)])
    assert imported.exit_code == 0, imported.output
    arguments = ["1", "--iterations", "8", "--output", str(tmp_path / "sweep")]
    result = CliRunner().invoke(main, ["evaluate", "checkpoints", *arguments])
    assert result.exit_code == 0, result.output
    assert "training 1 of the run database" in result.output
    shown = CliRunner().invoke(main, ["runs", "show", "1", "--json"])
    assert json.loads(shown.stdout)["notes"]["checkpoints"]["best"]["iteration"] == 8


def test_a_checkpoint_that_is_not_there_is_refused(trained, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint of iteration 5, 16; there are 4, 8, 12"):
        task_of(trained, tmp_path, iterations=[4, 5, 16]).steps()


def test_generated_data_cannot_be_predicted(trained, tmp_path):
    phantom = [{"phantom": {"shape": [8, 32, 32], "seed": 1}}]
    with pytest.raises(ConfigError, match="made by the generator"):
        task_of(trained, tmp_path, validation=phantom).steps()


def test_nothing_is_written_before_all_is_right(trained, tmp_path):
    arguments = [str(trained), "--iterations", "5", "--output", str(tmp_path / "sweep")]
    result = CliRunner().invoke(main, ["evaluate", "checkpoints", *arguments])
    assert result.exit_code == 2 and "no checkpoint of iteration 5" in result.output
    assert not (tmp_path / "sweep").exists()

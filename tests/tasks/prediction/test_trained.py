"""Predictions named by a training: the same bytes, the lineage, and errors before any work."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from em_blocks.cli.predict import main
from em_blocks.db.trainings.run_database import VARIABLE, run_database
from em_blocks.errors import ConfigError
from em_blocks.geometry import Frame
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume

SHAPE, FRAME = (8, 32, 32), Frame((10.0, 10.0, 10.0), (400.0, 46.0, 9.0))


@pytest.fixture
def job(tmp_path):
    """Write a config whose other keys are given; returns its path."""
    path = str(tmp_path / "raw.zarr/raw")
    raw = Volume.create(path, shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=(8, 32, 32))
    raw.write(raw.box, np.random.default_rng(3).integers(0, 200, SHAPE).astype("uint8"))

    def write(name, **values):
        config = {
            "kind": "predict", "run": name, "raw": path, "output": f"{name}/p.zarr",
            "block_shape": [4, 16, 32], "precision": "fp32", "run_dir": name,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(config | values))
        return tmp_path / f"{name}.json"

    return write


def predict(config, *options):
    result = CliRunner().invoke(main, [str(config), *map(str, options)], catch_exceptions=False)
    return result.exit_code, result.output


def stored(config):
    """Chunks and array metadata of the output, by name; not what names the run."""
    root = config.with_suffix("") / "p.zarr"
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in (".zattrs", "em_blocks_blocks.json")
    }


def test_a_prediction_by_number_has_the_bytes_and_the_fingerprint_of_an_explicit_one(
    runs_address, recorded, number, job
):
    explicit = job("explicit", setup=str(recorded))
    named = job("named", setup="somewhere/else")
    code, said = predict(explicit)
    assert code == 0, said
    code, said = predict(named, "--run-id", number, "--db", runs_address)
    assert code == 0, said
    assert stored(named) == stored(explicit) and len(stored(named)) > 1
    by_key = Predict.from_file(job("key", training=number, training_db=runs_address))
    by_folder = Predict.from_file(job("folder", training=str(recorded)))
    prints = [task.inputs()["network"] for task in (by_key, by_folder)]
    assert prints == [Predict.from_file(explicit).inputs()["network"]] * 2
    assert by_key.identity()["config"] == Predict.from_file(explicit).identity()["config"]
    with run_database(runs_address) as store:
        (found,) = store.predictions_of(by_key.training.uid)
    assert found["training"] == {
        "number": number, "uid": by_key.training.uid, "setup": "tiny", "iteration": 4,
        "sha256": by_key.training.sha256,
    }
    assert found["outputs"] == {"affinities": str(named.with_suffix("") / "p.zarr/affinities")}
    assert "training_db" not in found["config"]


def test_weights_are_chosen_by_the_option_and_by_the_key(
    runs_address, recorded, number, job, monkeypatch
):
    monkeypatch.setenv(VARIABLE, runs_address)
    for values in ({"training": f"{number}:8"}, {"training": number, "checkpoint": 8},
                   {"training": number, "checkpoint": "latest"}):
        task = Predict.from_file(job("key", **values))
        assert task.training.iteration == 8
        assert task.checkpoint.endswith("checkpoint_8.safetensors")
    code, said = predict(job("named"), "--run-id", recorded, "--checkpoint", 8)
    assert code == 0, said
    task = Predict.from_file(job("key", training=f"{number}:8"))
    with run_database(runs_address) as store:
        (found,) = store.predictions_of(task.training.uid)
    assert (found["training"]["iteration"], found["training"]["number"]) == (8, number)
    assert found["versions"]["torch"]


def test_a_task_that_was_found_is_not_looked_up_again(runs_address, number, recorded, job):
    task = Predict.from_file(job("key", training=number, training_db=runs_address))
    shutil.rmtree(recorded / "checkpoints")
    assert Predict.from_dict(task.stored_config()).training == task.training


def test_what_does_not_fit_is_one_paragraph_before_anything_is_written(
    runs_address, number, recorded, job
):
    config = job("named")
    for options, message in (
        (("--run-id", 999, "--db", runs_address), "no training 999"),
        (("--run-id", number, "--db", runs_address, "--checkpoint", 5), "no checkpoint '5'"),
        (("--run-id", number), "--db ADDRESS"),
    ):
        code, said = predict(config, *options)
        assert (code, said.count("\n")) == (2, 1), said
        assert message in said
    (recorded / "checkpoints" / "best.safetensors").write_bytes(b"spoilt")
    code, said = predict(config, "--run-id", number, "--db", runs_address)
    assert code == 2 and "recorded for iteration 4" in said
    assert not config.with_suffix("").exists()


def test_a_setup_and_a_training_in_one_config_are_refused(runs_address, recorded, number, job):
    with pytest.raises(ConfigError, match="Leave one of them out"):
        Predict.from_file(job("both", setup=str(recorded), training=number))
    with pytest.raises(ConfigError, match=r"names no network.*--set training=3"):
        Predict.from_file(job("none"))

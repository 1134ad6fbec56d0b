"""`em-blocks model` as its user types it."""

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.db.trainings.run_database import run_database
from em_blocks.training.records.importing import import_training
from recorded_training import write_training
from travelling import trained_setup


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_setup(tmp_path_factory.mktemp("setups") / "tiny")


def call(*arguments, code=0):
    done = CliRunner().invoke(main, ["model", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_a_model_is_exported_imported_and_tested(trained, tmp_path):
    about = tmp_path / "about.json"
    about.write_text(json.dumps({"license": "CC0-1.0", "authors": [{"name": "Ada Tester"}]}))
    output = tmp_path / "tiny.zip"
    assert "tiny.zip: tiny, " in call("export", trained, "--output", output, "--about", about)
    assert "test output is reproduced" in call("import", output, "--output", tmp_path / "setup")
    said = call("test", tmp_path / "setup")
    assert "the same values; affinities differs by 0 at most (1e-05 is accepted)" in said
    report = json.loads(call("test", tmp_path / "setup", "--json"))
    assert report["ok"] is True and report["heads"]["affinities"]["largest_difference"] == 0


def test_weights_that_were_replaced_after_their_training_are_not_exported(tmp_path):
    folder = write_training(tmp_path / "one")
    best = folder / "checkpoints" / "best.safetensors"
    best.write_bytes((folder / "checkpoints" / "checkpoint_8.safetensors").read_bytes())
    said = call("export", folder, "--output", tmp_path / "model", code=2)
    assert "recorded for iteration 4" in said and not (tmp_path / "model").exists()
    call("export", folder, "--checkpoint", 8, "--output", tmp_path / "model")


def test_a_difference_is_said_and_is_exit_code_1(trained, tmp_path):
    call("export", trained, "--output", tmp_path / "model")
    path = tmp_path / "model/sample/affinities.npy"
    np.save(path, np.load(path) + np.float32(0.125))
    assert "other values; affinities differs by 0.125" in call("test", tmp_path / "model", code=1)
    report = json.loads(call("test", tmp_path / "model", "--json", code=1))
    assert report["ok"] is False
    assert report["heads"]["affinities"]["largest_difference"] == pytest.approx(0.125)


@pytest.mark.parametrize("kind", ["onnx", "bioimageio"])
def test_other_formats_come_back_too(trained, tmp_path, kind):
    call("export", trained, "--output", tmp_path / "model", "--format", kind)
    call("import", tmp_path / "model", "--output", tmp_path / "setup")
    assert "the same values" in call("test", tmp_path / "setup")


@pytest.mark.parametrize("missing", ["onnxscript", "yaml"])
def test_a_package_that_is_not_installed_is_named(trained, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    said = call("export", trained, "--output", tmp_path / "m", "--format", "bioimageio", code=2)
    assert f"{missing} is not installed, which this needs: pip install 'em_blocks[onnx]'" in said
    assert not list(tmp_path.iterdir())


def test_a_training_is_exported_by_its_number_with_the_weights_that_are_named(tmp_path):
    folder, address = write_training(tmp_path / "one"), str(tmp_path / "runs")
    with run_database(address) as store:
        number = import_training(store, folder)
        call("export", "--run-id", f"{number}:8", "--db", address, "--output", tmp_path / "model")
    metadata = json.loads((tmp_path / "model/metadata.json").read_text())
    assert metadata["iteration"] == 8
    assert metadata["em_blocks"]["scores"] == {"affinities/cut_ap": 1 / 8}
    weights = (folder / "checkpoints/checkpoint_8.safetensors").read_bytes()
    assert (tmp_path / "model/checkpoints/best.safetensors").read_bytes() == weights
    for wrong in ((), (folder, "--run-id", folder)):
        said = call("export", *wrong, "--output", tmp_path / "m", code=2)
        assert "either the folder of a setup, or a training by --run-id" in said
    said = call("export", "--run-id", f"{folder}:5", "--output", tmp_path / "m", code=2)
    assert "no checkpoint '5'" in said


def test_what_is_no_model_is_refused_with_the_exit_code_of_bad_input(trained, tmp_path):
    assert "is no model that travels" in call("import", trained, "--output", tmp_path / "s", code=2)
    assert "does not exist" in call("import", tmp_path / "no", "--output", tmp_path / "s", code=2)
    assert "is not a folder" in call("export", tmp_path / "no", "--output", tmp_path / "s", code=2)
    said = call("export", trained, "--output", tmp_path / "s", "--checkpoint", "77", code=2)
    assert "checkpoint_77.safetensors" in said
    call("export", trained, "--output", tmp_path / "model")
    said = call("export", trained, "--output", tmp_path / "model", code=3)
    assert "is not overwritten" in said

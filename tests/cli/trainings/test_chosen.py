"""`em-blocks train --continue` and `--repeat`: real trainings from records."""

import json
import shutil

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from em_blocks.cli.trainings.chosen import Asked, Chosen, chosen_training
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.models.setup import Setup
from em_blocks.pipelines.train import main
from recorded_training import write_training
from tiny_setup import write_setup


def train(*options):
    return CliRunner().invoke(main, [str(option) for option in options], catch_exceptions=False)


def record(folder):
    return json.loads((folder / "checkpoints" / "record.json").read_text())


def weights(folder):
    return load_file(folder / "checkpoints" / "best.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(bool((one[key] == two[key]).all()) for key in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training with values that its config.json does not have."""
    folder = write_setup(tmp_path_factory.mktemp("trained") / "tiny")
    done = train(folder, "--set", "training.seed=9", "--iterations", 4)
    assert done.exit_code == 0, done.output
    return folder


def test_a_repeated_training_has_the_same_weights_and_says_what_it_repeats(trained, tmp_path):
    done = train("--repeat", trained, "--output", tmp_path / "again")
    assert done.exit_code == 0, done.output
    assert same(weights(trained), weights(tmp_path / "again"))
    new = record(tmp_path / "again")
    assert new["lineage"] == {"repeats": {"number": None, "uid": record(trained)["uid"]}}
    assert new["uid"] != record(trained)["uid"] and new["seed"] == 9


def test_a_continued_training_needs_neither_setup_nor_options(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    done = train("--continue", folder, "--iterations", 6)
    assert done.exit_code == 0, done.output
    assert (record(folder)["iteration"], record(folder)["seed"]) == (6, 9)
    assert [start["iteration"] for start in record(folder)["starts"]] == [0, 4]
    assert record(folder)["uid"] == record(trained)["uid"]


def asked(**values):
    empty = {
        "setup": None, "continued": None, "repeated": None, "output": None, "resume": False,
        "check_commit": False, "overrides": (),
    }
    return Asked(**empty | values)


@pytest.mark.parametrize(("values", "message"), [
    ({}, "Name what to train"), ({"continued": "x", "repeated": "x"}, "Name what to train"),
    ({"repeated": "FOLDER"}, "give --output"), ({"continued": "FOLDER", "output": "o"}, "--output"),
    ({"repeated": "FOLDER", "resume": True}, "--resume"), ({"continued": "5"}, "--db ADDRESS"),
])
def test_options_that_contradict_each_other_are_refused(tmp_path, values, message):
    folder = write_training(tmp_path / "one")
    values = {key: str(folder) if value == "FOLDER" else value for key, value in values.items()}
    with pytest.raises(ConfigError, match=message):
        chosen_training(asked(**values), None)


def test_a_commit_is_compared_where_that_is_asked_for(tmp_path):
    folder = write_training(tmp_path / "one")
    path = folder / "checkpoints" / "record.json"
    commit = {"em_blocks": {"commit": "f" * 40, "dirty": False}, "setup": None}
    path.write_text(json.dumps(record(folder) | {"git": commit}))
    assert chosen_training(asked(continued=str(folder)), None).resume
    with pytest.raises(RefusedError, match="commit ffffffffffff"):
        chosen_training(asked(continued=str(folder), check_commit=True), None)
    with pytest.raises(ConfigError, match="--check-commit"):
        chosen_training(asked(setup=folder, check_commit=True), None)


def test_the_command_that_goes_on_is_that_of_the_new_folder(tmp_path):
    setup = Setup.from_folder(write_setup(tmp_path / "tiny"))
    repeated = Chosen(setup, tmp_path / "out", False, {}, "repeated")
    arguments = ["train", "--repeat", "3", "--output", "out"]
    assert repeated.go_on(arguments, "host") == [
        "train", str(tmp_path / "out"), "--resume", "--db", "host"
    ]
    assert Chosen(setup, tmp_path, False, {}).go_on(["s"], None) == ["s", "--resume"]
    assert Chosen(setup, tmp_path, True, {}).go_on(["s", "--resume"], None) == ["s", "--resume"]
    assert Chosen(setup, tmp_path, True, {}, "continued").go_on(["--continue", "3"], None) == [
        "--continue", "3"
    ]

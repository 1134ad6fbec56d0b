"""Trainings that begin with what another one has learnt."""

import hashlib
import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file

from em_blocks.db.trainings.run_database import run_database
from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.models.setup import Setup
from em_blocks.training.beginning import start_of
from em_blocks.training.records.importing import import_training
from em_blocks.training.run import train
from recorded_training import write_training
from tiny_setup import tiny_config, write_setup

ROOT = Path(__file__).parents[2]


def trained(folder, *overrides, resume=False):
    return train(
        Setup.from_folder(folder, overrides), folder, "a test", resume=resume, go_on="go on like this"
    )


def weights(folder, name):
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(bool((one[key] == two[key]).all()) for key in one)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A training of 8 iterations; read only."""
    folder = write_setup(tmp_path_factory.mktemp("first") / "tiny")
    trained(folder)
    return folder


def started(tmp_path, start, **training):
    """Train another setup that begins with a file; returns its folder."""
    values = tiny_config()
    values["training"] |= {"iterations": 2, "checkpoint_every": 1, "validate_every": 2} | training
    values["training"]["initial"] = str(start.path)
    folder = write_setup(tmp_path / "second", values)
    trained(folder)
    return folder


def test_a_folder_means_its_best_weights_and_a_number_those_of_an_iteration(first):
    best = start_of(str(first), full_state=False)
    assert best.path == first / "checkpoints/best.safetensors"
    lineage = best.lineage["start_from"]
    assert lineage["setup"] == "tiny" and lineage["number"] is None and "full_state" not in lineage
    assert lineage["sha256"] == hashlib.sha256(best.path.read_bytes()).hexdigest()
    assert start_of(f"{first}:6").path.name == "checkpoint_6.safetensors"
    assert start_of(f"{first}:latest").path.name == "checkpoint_8.safetensors"
    assert start_of(str(first), full_state=True).lineage["start_from"]["full_state"] is True
    assert start_of(str(first), full_state=True).path.name == "state_8.pt"
    assert start_of(f"{first}:6", full_state=True).path.name == "state_6.pt"


@pytest.mark.parametrize(
    ("said", "full_state", "error", "message"),
    [
        ("{}:5", False, CheckpointError, r"5.*6.*8"),
        ("{}:2", True, CheckpointError, r"2.*6.*8"),
        ("{}/nowhere", False, ConfigError, r"There is no training in .*nowhere"),
        ("{}/nowhere:7", True, ConfigError, r"There is no training in .*nowhere"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(first, said, full_state, error, message):
    with pytest.raises(error, match=message):
        start_of(said.format(first), full_state=full_state)


def test_a_state_that_was_pruned_is_named_with_those_that_stay(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy")
    (copy / "checkpoints/state_6.pt").unlink()
    with pytest.raises(CheckpointError, match=r"state of iteration 6 .*there are: state_8.pt\."):
        start_of(f"{copy}:6", full_state=True)


def test_weights_that_are_not_those_of_the_record_are_refused(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "copy")
    best = copy / "checkpoints/best.safetensors"
    best.write_bytes(best.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"sha256"):
        start_of(str(copy))


def test_weights_alone_begin_with_a_fresh_optimiser(first, tmp_path):
    start = start_of(f"{first}:8", full_state=False)
    folder = started(tmp_path, start, learning_rate=1e-12)
    for key, value in weights(folder, "checkpoint_2").items():
        torch.testing.assert_close(value, weights(first, "checkpoint_8")[key], atol=1e-9, rtol=0)
    state = torch.load(folder / "checkpoints/state_2.pt", weights_only=True)
    assert state["trainer"]["optimizer"]["state"][0]["step"] == 2


def test_a_full_state_continues_the_optimiser_at_the_rates_of_the_new_config(first, tmp_path):
    start = start_of(str(first), full_state=True)
    folder = started(tmp_path, start, learning_rate=1e-12, weight_decay=0.25)
    state = torch.load(folder / "checkpoints/state_2.pt", weights_only=True)["trainer"]
    before = torch.load(start.path, weights_only=True)["trainer"]
    assert state["optimizer"]["state"][0]["step"] == 8 + 2
    group = state["optimizer"]["param_groups"][0]
    assert group["lr"] <= 1e-12 and group["weight_decay"] == 0.25
    for key, value in state["network"].items():
        torch.testing.assert_close(value, before["network"][key], atol=1e-9, rtol=0)
    record = json.loads((folder / "checkpoints/record.json").read_text())
    assert record["iteration"] == 2 and record["initial"], "iterations count from 0 again"


def test_a_training_that_began_with_a_state_resumes_to_the_same_weights(first, tmp_path):
    start = start_of(str(first), full_state=True)
    whole = started(tmp_path, start, iterations=4)
    stopped = shutil.copytree(whole, tmp_path / "stopped")
    for file in ("state_4.pt", "checkpoint_4.safetensors", "best.safetensors"):
        (stopped / "checkpoints" / file).unlink()
    trained(stopped, resume=True)
    assert same(weights(stopped, "checkpoint_4"), weights(whole, "checkpoint_4"))


def test_a_state_of_another_network_or_other_frozen_layers_is_refused(first, tmp_path):
    start = start_of(str(first), full_state=True)
    with pytest.raises(CheckpointError, match=r"other parameters.*training.freeze"):
        started(tmp_path / "a", start, freeze=["down.0"])
    values = tiny_config()
    values["network"]["features"] = [2, 4]
    values["training"]["initial"] = str(start.path)
    wider = write_setup(tmp_path / "wider", values)
    with pytest.raises(CheckpointError, match=r"state of another network.*without --full-state"):
        trained(wider)
    assert not (wider / "checkpoints").exists()


def test_frozen_layers_stay_those_of_the_weights(first, tmp_path):
    folder = started(tmp_path, start_of(str(first), full_state=False), freeze=["down"])
    now, then = weights(folder, "checkpoint_2"), weights(first, "best")
    assert all(torch.equal(now[key], then[key]) for key in now if key.startswith("down."))
    assert not torch.equal(now["heads.affinities.weight"], then["heads.affinities.weight"])


def test_weights_of_named_channels_tell_their_names(tmp_path, first):
    with safe_open(first / "checkpoints/best.safetensors", "pt") as file:
        assert "channels" not in file.metadata(), "heads without names are stored as ever"


def test_something_else_is_no_state(first, tmp_path):
    path = tmp_path / "state_3.pt"
    torch.save({"weights": torch.zeros(1)}, path)
    values = tiny_config()
    values["training"]["initial"] = str(path)
    with pytest.raises(CheckpointError, match=r"is no state of a training"):
        trained(write_setup(tmp_path / "wrong", values))


# -- by the command -------------------------------------------------------------------------------


def command(*arguments):
    main = runpy.run_path(str(ROOT / "pipelines" / "train.py"))["main"]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_begins_with_a_training_and_records_it(first, tmp_path):
    done = command(
        first, "--output", tmp_path / "tuned", "--start-from", f"{first}:6", "--iterations", 2,
        "--set", "training.learning_rate=1e-12",
    )
    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "tuned/checkpoints/record.json").read_text())
    assert record["lineage"]["start_from"]["iteration"] == 6
    for key, value in weights(tmp_path / "tuned", "checkpoint_2").items():
        torch.testing.assert_close(value, weights(first, "checkpoint_6")[key], atol=1e-9, rtol=0)
    again = command(tmp_path / "tuned", "--resume", "--iterations", 3)
    assert again.exit_code == 0, again.stderr


def test_a_number_means_a_training_of_the_run_database(tmp_path, monkeypatch):
    source, address = write_training(tmp_path / "source"), str(tmp_path / "runs")
    with run_database(address) as store:
        number = import_training(store, source)
        options = ("--iterations", 1, "--output", tmp_path / "tuned", "--start-from")
        done = command(source, *options, f"{number}:8", "--db", address)
        assert done.exit_code == 0, done.stderr
        lineage = store.training(number + 1)["lineage"]["start_from"]
        assert (lineage["number"], lineage["iteration"]) == (number, 8)
        monkeypatch.setenv("EM_BLOCKS_DB", address)
        unknown = command(source, *options, number + 7)
    assert unknown.exit_code == 2 and f"no training {number + 7}" in unknown.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{}", "--full-state"], r"--full-state does not fit here: it belongs to --start-from"),
        (["--repeat", "{}", "--start-from", "{}"], r"--start-from does not fit here"),
        (["{}", "--start-from", "{}:5"], r"5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(first, tmp_path, options, message):
    said = command(*(option.format(first) for option in options), "--output", tmp_path / "out")
    assert said.exit_code == 2 and re.search(message, said.stderr)
    assert not (tmp_path / "out").exists()

"""Trainings that are stopped, killed by a full disk, continued in another way, or fail to learn."""

import json
import math
import os
import resource
import shutil
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from em_blocks.errors import ConfigError, RefusedError, RunFailedError
from em_blocks.models.setup import Setup, numbered_checkpoints
from em_blocks.training.run import train
from em_blocks.training.scores.data_sets import DataSets
from em_blocks.training.trainer import Trainer
from em_blocks.training.validation import Validation
from tiny_setup import tiny_config, write_setup

SCORE = "affinities/cut_ap"


def trained(folder, *overrides, resume=False):
    """Train in this process; returns what it says at its end."""
    setup = Setup.from_folder(folder, overrides)
    return train(setup, folder, "a test", resume=resume, go_on="go on like this")


def record(folder):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = (folder / "checkpoints" / "record.json").read_text()
    return json.loads(text, parse_constant=refuse)


def weights(folder, name="best"):
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(bool((one[key] == two[key]).all()) for key in one)


def iteration_of(folder, name="best"):
    with safe_open(folder / "checkpoints" / f"{name}.safetensors", "pt") as file:
        return int(file.metadata()["iteration"])


def values(folder):
    found = tiny_config()
    found["training"] |= {"validate_every": 3, "checkpoint_every": 4}
    return write_setup(folder, found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training of 8 iterations with validations at 3, 6 and 8; read only."""
    folder = values(tmp_path_factory.mktemp("undisturbed") / "tiny")
    assert "8 iterations are done" in trained(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return values(tmp_path / "tiny")


@pytest.fixture
def copy(undisturbed, tmp_path):
    return shutil.copytree(undisturbed, tmp_path / "copy")


@pytest.fixture(autouse=True)
def sigint():
    """Ctrl-C works, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these are faster so, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def signal_at(monkeypatch, owner, method, call, number):
    """Send this process a signal in call `call` (from 0) of a method."""
    original, calls = getattr(owner, method), []

    def wrapped(self, *args):
        calls.append(1)
        if len(calls) == call + 1:
            os.kill(os.getpid(), number)
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, wrapped)
        yield


# -- stopped -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "method", "call", "number", "done"),
    [
        (Trainer, "step", 0, signal.SIGINT, 1),  # before any checkpoint
        (Trainer, "step", 4, signal.SIGTERM, 5),
        (DataSets, "scores", 2, signal.SIGINT, 6),  # the dry run is call 0
        (DataSets, "scores", 3, signal.SIGTERM, 8),  # the last, after the last iteration
    ],
)
def test_a_stopped_training_saves_its_state_and_resumes_to_the_same_weights(
    folder, undisturbed, monkeypatch, owner, method, call, number, done
):
    with (
        signal_at(monkeypatch, owner, method, call, number),
        pytest.raises(RunFailedError) as stopped,
    ):
        trained(folder)
    assert stopped.value.exit_code == 1
    for part in (number.name, f"after iteration {done} of 8", "go on with: go on like this"):
        assert part in str(stopped.value)
    assert (folder / "checkpoints" / f"state_{done}.pt").is_file()
    assert not (folder / "checkpoints" / "training.lock").exists()
    trained(folder, resume=True)
    for name in ("best", "checkpoint_8"):
        assert same(weights(folder, name), weights(undisturbed, name))
    assert record(folder)["history"] == record(undisturbed)["history"]
    assert record(folder)["best"] == record(undisturbed)["best"]
    assert iteration_of(folder) == iteration_of(undisturbed)


def test_a_training_killed_in_a_validation_loses_no_iteration(folder, undisturbed, monkeypatch):
    original, calls = DataSets.scores, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 4:  # the dry run is one: this is the one at 8
            raise KeyError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(DataSets, "scores", killed)
        with pytest.raises(KeyError):
            trained(folder)
    assert (folder / "checkpoints" / "state_8.pt").is_file()
    assert [entry["iteration"] for entry in record(folder)["history"]] == [3, 6]
    trained(folder, resume=True)
    assert record(folder)["history"] == record(undisturbed)["history"]
    assert same(weights(folder), weights(undisturbed))


def test_a_training_stopped_while_its_data_are_made_leaves_nothing(folder, monkeypatch):
    with (
        signal_at(monkeypatch, DataSets, "scores", 0, signal.SIGTERM),
        pytest.raises(RunFailedError, match="SIGTERM before the first iteration"),
    ):
        trained(folder)
    assert not (folder / "checkpoints").exists()


# -- continued in another way ------------------------------------------------------------------


def test_more_iterations_go_on_with_the_rates_of_the_longer_training(copy):
    assert "12 iterations" in trained(copy, "training.iterations=12", resume=True)
    found = record(copy)
    assert [entry["iteration"] for entry in found["history"]] == [3, 6, 8, 9, 12]
    assert found["changes"] == [
        {"iteration": 8, "changed": ["config.training.iterations: 8 -> 12"]}
    ]
    assert found["config"]["training"]["iterations"] == 12
    assert iteration_of(copy, "checkpoint_12") == 12
    assert found["best"]["iteration"] == iteration_of(copy)


def test_an_extended_training_that_is_stopped_resumes_to_the_same_weights(
    copy, undisturbed, tmp_path, monkeypatch
):
    trained(copy, "training.iterations=12", resume=True)
    other = shutil.copytree(undisturbed, tmp_path / "other")
    with (
        signal_at(monkeypatch, Trainer, "step", 1, signal.SIGINT),
        pytest.raises(RunFailedError, match="iteration 10 of 12"),
    ):
        trained(other, "training.iterations=12", resume=True)
    trained(other, "training.iterations=12", resume=True)
    assert same(weights(other, "checkpoint_12"), weights(copy, "checkpoint_12"))
    assert record(other)["changes"] == record(copy)["changes"]


def test_intervals_may_change(copy):
    options = ("training.validate_every=5", "training.checkpoint_every=9")
    trained(copy, *options, "training.iterations=10", resume=True)
    assert [entry["iteration"] for entry in record(copy)["history"]] == [3, 6, 8, 10]
    assert {f.name for f in (copy / "checkpoints").glob("state_*")} == {"state_9.pt", "state_10.pt"}
    assert len(record(copy)["changes"][0]["changed"]) == 3


def test_fewer_iterations_than_are_done_are_refused(copy):
    with pytest.raises(RefusedError, match="8 iterations, more than the 5"):
        trained(copy, "training.iterations=5", resume=True)


@pytest.mark.parametrize("option", ["training.seed=2", "training.ema_decay=0.9", "tile_shape=[2,16,16]"])
def test_what_decides_the_weights_is_refused_with_what_may_be_changed(copy, option):
    key, value = option.split("=")
    with pytest.raises(RefusedError) as refused:
        trained(copy, option, "training.iterations=9", resume=True)
    assert f"config.{key}" in str(refused.value) and "-> " + value[:1].strip("[") in str(refused.value)
    assert "iterations: 8" not in str(refused.value)
    assert "may be changed: iterations, validate_every" in str(refused.value)


def test_a_finished_training_has_nothing_to_do_and_says_where_the_best_is(copy):
    before = weights(copy)
    said = trained(copy, resume=True)
    best = record(copy)["best"]
    assert f"of iteration {best['iteration']} with {SCORE} {best[SCORE]:.4f}" in said
    assert str(copy / "checkpoints" / "best.safetensors") in said
    assert same(weights(copy), before)


def with_history(folder, **scores):
    """Replace scores in the newest state of a training: score -> values of its validations."""
    path = folder / "checkpoints" / "state_8.pt"
    state = torch.load(path, weights_only=True)
    history = json.loads(state["history"])
    for name, given in scores.items():
        for entry, value in zip(history, given, strict=True):
            entry[f"affinities/{name}"] = value
    torch.save(state | {"history": json.dumps(history)}, path)


def test_another_score_chooses_among_the_weights_that_are_there(copy, caplog):
    # Validated at 3, 6 and 8; there are the best so far and checkpoint_8.
    best, eight = iteration_of(copy), weights(copy, "checkpoint_8")
    with_history(copy, cut_f1=[0.1, 0.2, 0.9])
    trained(copy, "training.score=affinities/cut_f1", resume=True)
    assert iteration_of(copy) == record(copy)["best"]["iteration"] == 8
    assert same(weights(copy), eight) and "weights were not kept" not in caplog.text
    assert best in (3, 6, 8)


def test_better_weights_that_are_gone_are_named(copy, caplog):
    (copy / "checkpoints" / "best.safetensors").unlink()
    with_history(copy, cut_f1=[0.1, 0.9, 0.2])
    trained(copy, "training.score=affinities/cut_f1", resume=True)
    assert "iteration 6 was the best" in caplog.text and "iteration 8 counts" in caplog.text
    assert iteration_of(copy) == 8


def test_a_best_checkpoint_newer_than_the_state_is_made_again(copy, undisturbed):
    # As if killed after the validation at 8 and before its state was saved.
    for name in ("state_8.pt", "checkpoint_8.safetensors"):
        (copy / "checkpoints" / name).unlink()
    trained(copy, "training.validate_every=5", resume=True)
    history = record(copy)["history"]
    assert [entry["iteration"] for entry in history] == [3, 5, 8]
    assert iteration_of(copy) == record(copy)["best"]["iteration"]


# -- nothing to choose -------------------------------------------------------------------------


def test_a_training_without_any_score_ends_with_an_error_and_valid_json(folder, monkeypatch):
    def nothing(self, network, iteration):
        entry = dict.fromkeys(self.names)
        return {"iteration": iteration, **entry, "undefined": dict.fromkeys(self.names, "a test")}

    monkeypatch.setattr(Validation, "entry", nothing)
    with pytest.raises(RunFailedError, match=r"no best checkpoint: .*cut_ap had no value in any of 3"):
        trained(folder)
    found = record(folder)
    assert found["best"] is None and found["history"][0][SCORE] is None
    assert found["history"][2]["undefined"][SCORE] == "a test"
    assert not (folder / "checkpoints" / "best.safetensors").exists()
    with pytest.raises(RunFailedError, match="no best checkpoint"):  # not by doing it again either
        trained(folder, resume=True)


def test_a_nan_of_an_older_version_becomes_null_and_is_never_the_best(copy):
    with_history(copy, cut_f1=[math.nan, 0.5, math.nan])
    trained(copy, "training.score=affinities/cut_f1", "training.iterations=9", resume=True)
    found = record(copy)
    assert [entry["affinities/cut_f1"] for entry in found["history"]][:3] == [None, 0.5, None]
    assert found["best"]["affinities/cut_f1"] is not None


def test_weights_that_are_not_finite_are_never_stored(folder, monkeypatch):
    original = Trainer.step

    def spoilt(self, iteration, batch):
        step = original(self, iteration, batch)
        if iteration == 5:
            with torch.no_grad():
                next(self.average.parameters()).fill_(math.inf)
        return step

    monkeypatch.setattr(Trainer, "step", spoilt)
    with pytest.raises(RunFailedError, match=r"After iteration 8 .* not finite"):
        trained(folder)
    assert {f.name for f in (folder / "checkpoints").glob("state_*")} == {"state_4.pt"}
    assert all(values.isfinite().all() for values in weights(folder).values())


# -- checked before the first iteration --------------------------------------------------------


def nothing_written(folder):
    return {path.name for path in folder.iterdir()} == {"config.json", "network.py"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["training"].update(score="affinities/cut_AP"), r"affinities/cut_ap"),
        (lambda v: v["training"].update(score="affinities/nothing"), r"affinities/cut_ap"),
        (lambda v: v["heads"].update(d={"kind": "direction_vectors"}), r"phantom of seed 3 of"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path, change, message
):
    found = tiny_config()
    change(found)
    folder = write_setup(tmp_path / "tiny", found)
    with pytest.raises(ConfigError, match=message):
        trained(folder)
    assert nothing_written(folder)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("heads.pop('affinities'); heads['other'] = Head(4, 'sigmoid')", r"'other'.*'affinities'"),
        ("heads['affinities'] = Head(3, 'sigmoid')", r"\(3, 4, 16, 16\).*\(4, 4, 16, 16\)"),
    ],
)
def test_a_network_that_does_not_give_the_heads_is_refused(folder, network, message):
    text = (folder / "network.py").read_text()
    (folder / "network.py").write_text(text.replace("    return", f"    {network}\n    return"))
    with pytest.raises(ConfigError, match=message):
        trained(folder)
    assert nothing_written(folder)


def test_a_disk_that_cannot_hold_the_checkpoints_is_said_before(folder, monkeypatch):
    free = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(ConfigError, match=r"disk of .* is too small"):
        trained(folder)
    assert nothing_written(folder)


def test_a_disk_that_fills_up_leaves_the_state_of_before(folder, undisturbed, monkeypatch):
    original = Trainer.step

    def limited(self, iteration, batch):
        if iteration == 6:  # files may not grow beyond this from now on
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        return original(self, iteration, batch)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(Trainer, "step", limited)
    try:
        with pytest.raises(RunFailedError, match=r"cannot be written: .*--resume"):
            trained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    assert {f.name for f in (folder / "checkpoints").glob("state_*")} == {"state_4.pt"}
    assert not list((folder / "checkpoints").glob(".*"))
    trained(folder, resume=True)
    assert same(weights(folder), weights(undisturbed))


def test_the_best_checkpoints_stay_and_another_choice_of_them_goes_on(folder):
    often = ("training.validate_every=2", "training.checkpoint_every=2")
    trained(folder, *often, 'training.keep={"last": 1, "best": 3}')
    best = sorted(record(folder)["history"], key=lambda entry: -entry[SCORE])[:3]
    kept = {8, *(entry["iteration"] for entry in best)}
    assert numbered_checkpoints(folder / "checkpoints").keys() == kept
    trained(folder, *often, "training.iterations=10", resume=True)
    (change,) = record(folder)["changes"]
    assert any("keep.best: 3 -> None" in value for value in change["changed"])
    assert numbered_checkpoints(folder / "checkpoints").keys() == {8, 10}


# -- early end -----------------------------------------------------------------------------------

STEADY = {3: 0.5, 6: 0.7, 9: 0.7, 12: 0.6, 15: 0.65, 18: 0.8, 20: 0.1}
PATIENT = ("training.iterations=20", "training.patience=2", "training.checkpoint_every=5")


@pytest.fixture
def scored(monkeypatch):
    """Scores of `STEADY` instead of those that are measured."""
    original = Validation.entry

    def entry(self, network, iteration):
        return original(self, network, iteration) | {SCORE: STEADY[iteration]}

    monkeypatch.setattr(Validation, "entry", entry)


def test_a_training_ends_early_where_validations_are_no_better(folder, scored):
    said = trained(folder, *PATIENT)
    assert "12 iterations are done, not all 20: 2 validations were no better" in said
    assert "of iteration 6 with affinities/cut_ap 0.7000" in said and iteration_of(folder) == 6
    assert (folder / "checkpoints" / "state_12.pt").is_file(), "nothing that was done is lost"
    assert iteration_of(folder, "checkpoint_12") == 12
    assert trained(folder, *PATIENT, resume=True) == said, "and it stays ended"
    assert record(folder)["iteration"] == 12


def test_more_patience_goes_on_as_if_there_had_been_more_from_the_start(folder, scored, tmp_path):
    trained(folder, *PATIENT)
    more = (*PATIENT, "training.patience=4")
    assert "20 iterations are done." in trained(folder, *more, resume=True)
    other = values(tmp_path / "other")
    trained(other, *more)
    assert same(weights(folder, "checkpoint_20"), weights(other, "checkpoint_20"))
    assert record(folder)["best"]["iteration"] == 18
    assert record(folder)["changes"][0]["changed"] == ["config.training.patience: 2 -> 4"]


def test_too_little_memory_ends_with_what_to_lower_and_keeps_what_was_saved(folder, monkeypatch):
    original = Trainer.step

    def step(self, iteration, batch):
        if iteration == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, iteration, batch)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(RunFailedError, match=r"Lower training.output_shape from \(4, 16, 16\) to"):
        trained(folder)
    assert (folder / "checkpoints" / "state_4.pt").is_file()

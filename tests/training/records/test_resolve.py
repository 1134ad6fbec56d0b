"""Setup and weights of a training: found, and verified to belong together."""

import json
import shutil

import pytest

from em_blocks.db.trainings.run_database import run_database
from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.training.records.importing import import_training
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.resolve import resolve_training
from recorded_training import write_training


def checkpoint(document, file):
    return next(one for one in document["checkpoints"] if one["file"] == file)


@pytest.mark.parametrize(("said", "which", "file", "iteration"), [
    ("{}", None, "best.safetensors", 4), ("{}:8", None, "checkpoint_8.safetensors", 8),
    ("{}", "4", "checkpoint_4.safetensors", 4), ("{}:latest", None, "checkpoint_8.safetensors", 8),
    ("{}:best", "best", "best.safetensors", 4),
])  # fmt: skip
def test_weights_are_those_that_are_named(runs_address, recorded, number, said, which, file, iteration):
    for name in (str(number), str(recorded)):
        found = resolve_training(runs_address, said.format(name), which)
        assert (found.folder, found.checkpoint) == (recorded, recorded / "checkpoints" / file)
        assert found.iteration == iteration
        assert found.sha256 == checkpoint(found.document, file)["sha256"]
        assert found.setup.config.name == "tiny"
        assert found.lineage()["number"] == (number if name == str(number) else None)


def test_an_unknown_number_lists_those_that_exist(runs_address, number):
    with pytest.raises(ConfigError, match=rf"no training 999.*{number} \(tiny, finished\)"):
        resolve_training(runs_address, "999")


def test_unknown_weights_list_those_that_exist(runs_address, number):
    with pytest.raises(CheckpointError, match=r"no checkpoint '5'.*4, 8, best \(of 4\)"):
        resolve_training(runs_address, f"{number}:5")


def test_weights_that_were_replaced_are_refused(runs_address, recorded, number):
    weights = recorded / "checkpoints" / "best.safetensors"
    shutil.copy(recorded / "checkpoints" / "checkpoint_8.safetensors", weights)
    others = r"other weights: 4 \(checkpoint_4.safetensors\), 8 \(checkpoint_8.safetensors\)\.$"
    with pytest.raises(CheckpointError, match=rf"sha256 is .*recorded for iteration 4.*{others}"):
        resolve_training(runs_address, number)
    assert resolve_training(runs_address, f"{number}:8").iteration == 8
    weights.unlink()
    with pytest.raises(CheckpointError, match="do not exist"):
        resolve_training(runs_address, number)


@pytest.mark.parametrize("change", [
    {"voxel_size": [10, 10, 11]}, {"normalization": {"scale": 0.02, "shift": -1.0}},
])
def test_another_config_than_was_trained_is_refused(runs_address, recorded, number, change):
    path = recorded / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        resolve_training(runs_address, number)


def test_keys_of_the_training_may_differ_from_the_recorded_ones(runs_address, recorded, number):
    path = recorded / "config.json"
    values = json.loads(path.read_text())
    values["training"]["iterations"] = 99  # as by --iterations
    path.write_text(json.dumps(values))
    assert resolve_training(runs_address, number).iteration == 4


def test_another_network_file_is_refused(runs_address, recorded, number):
    with (recorded / "network.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ConfigError, match=r"network\.py is not the one"):
        resolve_training(runs_address, number)


def test_a_folder_that_moved_is_found_after_its_import(runs_address, recorded, number, tmp_path):
    recorded.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="em-blocks runs import"):
        resolve_training(runs_address, number)
    with run_database(runs_address) as store:
        import_training(store, tmp_path / "moved")
    assert resolve_training(runs_address, number).folder == tmp_path / "moved"


def test_another_training_in_its_folder_is_refused(runs_address, recorded, number):
    shutil.rmtree(recorded)
    write_training(recorded, seed=1)
    with pytest.raises(ConfigError, match="another training"):
        resolve_training(runs_address, number)


def test_the_record_of_the_folder_counts_where_the_database_lags_behind(runs_address, recorded, number):
    record = record_of(recorded)
    document = record.read()
    shutil.copy(recorded / "checkpoints" / "checkpoint_8.safetensors",
                recorded / "checkpoints" / "best.safetensors")
    sha256 = checkpoint(document, "checkpoint_8.safetensors")["sha256"]
    checkpoint(document, "best.safetensors").update(iteration=8, sha256=sha256)
    record.path.write_text(json.dumps(document | {"updated": "9999"}))
    assert resolve_training(runs_address, number).iteration == 8


@pytest.mark.parametrize(("said", "which", "message"), [
    ("3:8", "4", "Name one of them"), ("3", "best.pt", "best, latest or an iteration"),
])
def test_words_that_contradict_or_name_files_are_refused(runs_address, said, which, message):
    with pytest.raises(ConfigError, match=message):
        resolve_training(runs_address, said, which)

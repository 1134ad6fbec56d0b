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


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A run database that stays up."""
    address = str(tmp_path_factory.mktemp("runs"))
    with run_database(address):
        yield address


@pytest.fixture
def folder(tmp_path):
    return write_training(tmp_path / "one")


@pytest.fixture
def number(address, folder):
    with run_database(address) as store:
        return import_training(store, folder)


def checkpoint(document, file):
    return next(one for one in document["checkpoints"] if one["file"] == file)


@pytest.mark.parametrize(("said", "which", "file", "iteration"), [
    ("{}", None, "best.safetensors", 4), ("{}:8", None, "checkpoint_8.safetensors", 8),
    ("{}", "4", "checkpoint_4.safetensors", 4), ("{}:latest", None, "checkpoint_8.safetensors", 8),
    ("{}:best", "best", "best.safetensors", 4),
])  # fmt: skip
def test_weights_are_those_that_are_named(address, folder, number, said, which, file, iteration):
    for name in (str(number), str(folder)):
        found = resolve_training(address, said.format(name), which)
        assert (found.folder, found.checkpoint) == (folder, folder / "checkpoints" / file)
        assert found.iteration == iteration
        assert found.sha256 == checkpoint(found.document, file)["sha256"]
        assert found.setup.config.name == "tiny"
        assert found.lineage()["number"] == (number if name == str(number) else None)


def test_an_unknown_number_lists_those_that_exist(address, number):
    with pytest.raises(ConfigError, match=rf"no training 999.*{number} \(tiny, finished\)"):
        resolve_training(address, "999")


def test_unknown_weights_list_those_that_exist(address, number):
    with pytest.raises(CheckpointError, match=r"no checkpoint '5'.*4, 8, best \(of 4\)"):
        resolve_training(address, f"{number}:5")


def test_weights_that_were_replaced_are_refused(address, folder, number):
    weights = folder / "checkpoints" / "best.safetensors"
    shutil.copy(folder / "checkpoints" / "checkpoint_8.safetensors", weights)
    with pytest.raises(CheckpointError, match=r"sha256 is .*recorded for iteration 4"):
        resolve_training(address, number)
    assert resolve_training(address, f"{number}:8").iteration == 8
    weights.unlink()
    with pytest.raises(CheckpointError, match="do not exist"):
        resolve_training(address, number)


@pytest.mark.parametrize("change", [
    {"voxel_size": [10, 10, 11]}, {"normalization": {"scale": 0.02, "shift": -1.0}},
])
def test_another_config_than_was_trained_is_refused(address, folder, number, change):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=next(iter(change))):
        resolve_training(address, number)


def test_keys_of_the_training_may_differ_from_the_recorded_ones(address, folder, number):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["training"]["iterations"] = 99  # as by --iterations
    path.write_text(json.dumps(values))
    assert resolve_training(address, number).iteration == 4


def test_another_network_file_is_refused(address, folder, number):
    with (folder / "network.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ConfigError, match=r"network\.py is not the one"):
        resolve_training(address, number)


def test_a_folder_that_moved_is_found_after_its_import(address, folder, number, tmp_path):
    folder.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match="em-blocks runs import"):
        resolve_training(address, number)
    with run_database(address) as store:
        import_training(store, tmp_path / "moved")
    assert resolve_training(address, number).folder == tmp_path / "moved"


def test_another_training_in_its_folder_is_refused(address, folder, number):
    shutil.rmtree(folder)
    write_training(folder, seed=1)
    with pytest.raises(ConfigError, match="another training"):
        resolve_training(address, number)


def test_the_record_of_the_folder_counts_where_the_database_lags_behind(address, folder, number):
    record = record_of(folder)
    document = record.read()
    shutil.copy(folder / "checkpoints" / "checkpoint_8.safetensors",
                folder / "checkpoints" / "best.safetensors")
    sha256 = checkpoint(document, "checkpoint_8.safetensors")["sha256"]
    checkpoint(document, "best.safetensors").update(iteration=8, sha256=sha256)
    record.path.write_text(json.dumps(document | {"updated": "9999"}))
    assert resolve_training(address, number).iteration == 8


@pytest.mark.parametrize(("said", "which", "message"), [
    ("3:8", "4", "Name one of them"), ("3", "best.pt", "best, latest or an iteration"),
])
def test_words_that_contradict_or_name_files_are_refused(address, said, which, message):
    with pytest.raises(ConfigError, match=message):
        resolve_training(address, said, which)

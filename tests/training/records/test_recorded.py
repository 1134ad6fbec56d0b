"""Finding trainings: by number, by folder, below a folder."""

import json
import os
import shutil
import time

import pytest

from em_blocks.db.connect import connect
from em_blocks.db.server import embedded_server
from em_blocks.db.trainings.store import TrainingStore
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.training.records.importing import import_training
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.recorded import (
    find_recorded,
    recorded_below,
    recorded_in,
    summary,
)
from recorded_training import write_training


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with embedded_server(tmp_path_factory.mktemp("db")) as uri, connect(uri) as client:
        yield client


@pytest.fixture
def store(client, request):
    return TrainingStore(client[f"runs_{abs(hash(request.node.name))}"])


def test_an_imported_training_says_in_the_database_what_its_folder_says(store, tmp_path):
    folder = write_training(tmp_path / "one")
    assert import_training(store, folder) == 1
    there, here = find_recorded(store, "1"), find_recorded(None, str(folder))
    for key, value in here.document.items():
        assert there.document[key] == value, key
    assert there.curves() == here.curves()
    assert there.curves()["train/loss"].values == [1 / n for n in range(1, 9)]
    assert summary(there) == summary(here) | {"id": 1}
    assert summary(here)["best"] == {"iteration": 4, "score": "affinities/cut_ap", "value": 0.25}


def test_a_training_whose_folder_moved_keeps_its_number(store, tmp_path):
    import_training(store, write_training(tmp_path / "other"))
    import_training(store, write_training(tmp_path / "old"))
    os.rename(tmp_path / "old", tmp_path / "new")
    assert import_training(store, tmp_path / "new") == 2
    assert find_recorded(store, "2").folder == tmp_path / "new"


def test_a_training_that_is_not_there_lists_those_that_are(store, tmp_path):
    with pytest.raises(ConfigError, match="none yet"):
        find_recorded(store, "7")
    import_training(store, write_training(tmp_path / "one"))
    with pytest.raises(ConfigError, match=r"no training 7.*1 \(tiny, finished\)"):
        find_recorded(store, "7")
    with pytest.raises(ConfigError, match="--db ADDRESS"):
        find_recorded(None, "7")
    with pytest.raises(ConfigError, match=r"no checkpoints/record\.json"):
        find_recorded(store, str(tmp_path))


def test_trainings_below_a_folder_are_found_but_not_in_volumes(tmp_path):
    write_training(tmp_path / "b")
    write_training(tmp_path / "a" / "deep")
    write_training(tmp_path / "volume.zarr" / "no")
    assert [t.folder.name for t in recorded_below(tmp_path)] == ["deep", "b"]


def test_a_training_that_was_killed_is_dead_and_one_that_runs_is_not_imported(store, tmp_path):
    folder = write_training(tmp_path / "one")
    record = record_of(folder)
    record.path.write_text(json.dumps(record.read() | {"state": "running"}))
    lock = folder / "checkpoints" / "training.lock"
    lock.touch()
    assert recorded_in(folder).document["state"] == "running"
    with pytest.raises(RefusedError, match="running"):
        import_training(store, folder)
    os.utime(lock, (0, time.time() - 90))
    assert recorded_in(folder).document["state"] == "dead"
    lock.unlink()
    assert recorded_in(folder).document["state"] == "dead"


def test_a_record_of_an_earlier_version_is_shown_but_not_imported(store, tmp_path):
    folder = write_training(tmp_path / "one")
    record = record_of(folder)
    new = ("uid", "state", "started", "host", "lineage", "starts", "checkpoints", "best_of_each")
    record.path.write_text(json.dumps({k: v for k, v in record.read().items() if k not in new}))
    (folder / "training" / "metrics.jsonl").unlink()
    training = recorded_in(folder)
    assert summary(training)["state"] == "unknown"
    assert training.curves()["validation/affinities/cut_ap"].values == [0.25, 0.125]
    with pytest.raises(ConfigError, match="no `uid`"):
        import_training(store, folder)


def test_a_copy_of_a_training_is_not_imported_in_its_place(store, tmp_path):
    folder = write_training(tmp_path / "one")
    import_training(store, folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(RefusedError, match=f"copy of training 1 in {folder}"):
        import_training(store, copy)
    record = record_of(copy)
    values = record.read()
    del values["uid"]
    record.path.write_text(json.dumps(values))
    assert import_training(store, folder) == 1


@pytest.mark.parametrize(("text", "message"), [
    ('{"setup": "tiny"', "no JSON"), ('{"setup": "tiny"}', "has no config, iteration"),
])
def test_a_spoilt_record_is_named_and_hides_no_other(tmp_path, caplog, text, message):
    write_training(tmp_path / "b")
    record_of(write_training(tmp_path / "a")).path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        recorded_in(tmp_path / "a")
    assert [training.folder.name for training in recorded_below(tmp_path)] == ["b"]
    assert message in caplog.text

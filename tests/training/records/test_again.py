"""Continue and repeat a training: with its config, and with its code where that is asked for."""

import json
import subprocess

import pytest

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.training.records import origin
from em_blocks.training.records.again import check_commit, lineage_of, setup_of
from em_blocks.training.records.json_record import record_of
from em_blocks.training.records.origin import Origin, commit
from em_blocks.training.records.recorded import recorded_in
from recorded_training import write_training


def git(folder, *arguments):
    names = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", "-C", folder, *names, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    """A folder with a committed file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "network.py").write_text("one\n")
    git(tmp_path, "add", "network.py")
    git(tmp_path, "commit", "-qm", "first")
    commit.cache_clear()
    yield tmp_path
    commit.cache_clear()


def test_a_commit_is_that_of_tracked_files_and_says_if_they_changed(repository, tmp_path_factory):
    first = commit(repository)
    assert len(first["commit"]) == 40 and not first["dirty"]
    (repository / "notes.txt").write_text("untracked files decide nothing\n")
    commit.cache_clear()
    assert commit(repository) == first
    (repository / "network.py").write_text("two\n")
    commit.cache_clear()
    assert commit(repository) == first | {"dirty": True}
    ignored = repository / "runs" / "one"
    ignored.mkdir(parents=True)
    assert commit(ignored) is None, "a folder that git does not track has no commit"
    assert commit(tmp_path_factory.mktemp("none")) is None


def with_git(folder, **found):
    record = record_of(folder)
    record.path.write_text(json.dumps(record.read() | {"git": found}))
    return recorded_in(folder)


def test_other_code_than_was_recorded_is_refused(tmp_path, monkeypatch):
    now = {"em_blocks": {"commit": "a" * 40, "dirty": False}, "setup": None}
    monkeypatch.setattr("em_blocks.training.records.again.commits", lambda folder: now)
    folder = write_training(tmp_path / "one")
    check_commit(with_git(folder, **now), folder)
    for other in (
        {"commit": "b" * 40, "dirty": False}, {"commit": "a" * 40, "dirty": True}, None,
    ):
        training = with_git(folder, em_blocks=other, setup=None)
        with pytest.raises(RefusedError, match="code of em_blocks"):
            check_commit(training, folder)
    changed = {"em_blocks": {"commit": "a" * 40, "dirty": True}, "setup": None}
    monkeypatch.setattr("em_blocks.training.records.again.commits", lambda folder: changed)
    with pytest.raises(RefusedError, match="with changes"):  # the changes may be others
        check_commit(with_git(folder, **changed), folder)
    monkeypatch.setattr("em_blocks.training.records.again.commits", lambda folder: now)
    with pytest.raises(RefusedError, match="code of setup"):
        check_commit(with_git(folder, **(now | {"setup": {"commit": "c", "dirty": False}})), folder)


def test_the_config_is_the_trained_one_not_that_of_the_file(tmp_path):
    folder = write_training(tmp_path / "one")
    values = json.loads((folder / "config.json").read_text())
    values["training"]["seed"] = 77  # --set had another one when it was trained
    (folder / "config.json").write_text(json.dumps(values))
    training = recorded_in(folder)
    assert setup_of(training).config.training.seed == 1
    assert setup_of(training, ("training.seed=5",)).config.training.seed == 5
    assert setup_of(training).folder == folder


def test_the_config_of_a_training_in_another_folder_is_the_copy_there(tmp_path):
    folder = write_training(tmp_path / "one")
    record = record_of(folder)
    document = record.read()
    document["config"]["training"]["seed"] = 77
    document["made"] = {"config.json": "0"}
    record.path.write_text(json.dumps(document))
    assert setup_of(recorded_in(folder)).config.training.seed == 1


def test_another_network_than_was_trained_is_not_continued(tmp_path):
    folder = write_training(tmp_path / "one")
    (folder / "network.py").write_text("# empty\n")
    with pytest.raises(ConfigError, match=r"network\.py is not the one"):
        setup_of(recorded_in(folder))


def test_a_repeated_training_says_what_it_repeats_and_keeps_that_when_resumed(tmp_path):
    training = recorded_in(write_training(tmp_path / "one"))
    lineage = lineage_of(training)
    assert lineage == {"repeats": {"number": None, "uid": training.document["uid"]}}
    new = Origin({}, 0, "train", tmp_path, lineage)
    again = Origin(new.document(), 8, "train --resume", tmp_path, {})
    assert (again.uid, again.lineage) == (new.uid, lineage)
    assert [start["iteration"] for start in again.starts] == [0, 8]
    assert again.document()["started"] == new.document()["started"]
    assert origin.versions().keys() >= {"python", "torch", "em_blocks"}

"""Files of a training are whole or absent."""

import shutil

import pytest
import torch
from torch import nn

from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.models.config import Retention
from em_blocks.models.setup import numbered_checkpoints
from em_blocks.training.checkpoints import TrainingFiles


@pytest.fixture
def files(tmp_path):
    return TrainingFiles(tmp_path)


def test_only_the_newest_states_and_weights_are_kept(files):
    for iteration in (9, 10, 11):
        files.save_state({"iteration": iteration, "trainer": {}}, iteration)
        files.save_checkpoint(nn.Linear(1, 1), iteration, {"iteration": str(iteration)})
    assert sorted(files.states()) == [10, 11]
    assert files.load_state() == {"iteration": 11, "trainer": {}}
    assert not (files.folder / "checkpoint_9.safetensors").exists()


def checkpoints(tmp_path, iterations, best=(), **keep):
    files = TrainingFiles(tmp_path, Retention(**keep))
    for iteration in iterations:
        files.save_checkpoint(nn.Linear(1, 1), iteration, {"iteration": str(iteration)}, best)
    return sorted(numbered_checkpoints(files.folder))


@pytest.mark.parametrize(("keep", "best", "kept"), [
    ({}, (), [50, 60]),
    ({"last": 1}, (), [60]),
    ({"last": 1, "every": 20}, (), [20, 40, 60]),
    ({"last": 3}, (10, 50), [10, 40, 50, 60]),
])
def test_the_newest_checkpoints_multiples_and_the_best_stay(tmp_path, keep, best, kept):
    assert checkpoints(tmp_path, range(10, 70, 10), best, **keep) == kept
    assert len(kept) < Retention(**keep, best=len(best) or 1).most(60)  # best.safetensors is one more


def test_a_failed_write_leaves_the_old_file_and_no_remains(files):
    files.record.start(0, {"score": 1})
    with pytest.raises(TypeError):
        files.record.checkpoint(1, files.folder, {"score": {1, 2}})
    assert files.record.read() == {"score": 1}
    assert [path.name for path in files.folder.iterdir()] == ["record.json"]


def test_remains_of_a_killed_training_are_removed_on_resume(files):
    files.save_state({"iteration": 1, "trainer": {}}, 1)
    partial = files.folder / ".state_2.pt.123.partial"
    partial.write_bytes(b"half")
    assert files.load_state() == {"iteration": 1, "trainer": {}}
    assert not partial.exists()


def test_a_used_folder_is_refused_and_an_empty_one_is_not(files):
    files.refuse_if_used()
    files.save_best(nn.Linear(1, 1), {})
    with pytest.raises(RefusedError, match=r"best\.safetensors"):
        files.refuse_if_used()


def test_a_state_that_holds_code_is_not_executed(files):
    files.folder.mkdir()
    torch.save({"code": print}, files.folder / "state_1.pt")
    with pytest.raises(CheckpointError, match=r"state_1\.pt"):
        files.load_state()


def test_weights_can_be_read_by_others(files):
    files.save_best(nn.Linear(1, 1), {})
    assert (files.folder / "best.safetensors").stat().st_mode & 0o044 == 0o044


def test_the_space_that_a_training_needs_is_asked_for_and_what_is_there_counts(files, monkeypatch):
    network = nn.Linear(10, 10)  # 440 bytes; a state is four times that
    files.folder.mkdir()

    def check(free):
        usage = shutil.disk_usage(files.folder)._replace(free=free)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage)
            files.check_space(network, iterations=100)

    needed = 440 * (2 * 5 + 1 + 5)
    check(needed)
    with pytest.raises(ConfigError, match="too small"):
        check(needed - 1)
    (files.folder / "state_1.pt").write_bytes(bytes(1000))
    (files.folder / "best.safetensors").write_bytes(bytes(500))
    check(needed - 1500)
    with pytest.raises(ConfigError, match="too small"):
        check(needed - 1501)
    (files.folder / "state_2.pt").write_bytes(bytes(10**5))  # of a larger network: one more of ours
    check(440 * 5)
    with pytest.raises(ConfigError, match="too small"):
        check(440 * 5 - 1)


def test_nan_never_enters_the_record(files):
    with pytest.raises(ValueError, match="JSON"):
        files.record.start(0, {"score": float("nan")})
    assert not files.record.path.exists()


def test_weights_are_found_by_the_iteration_that_they_say(files):
    files.save_checkpoint(nn.Linear(1, 1), 4, {"iteration": "4"})
    files.save_checkpoint(nn.Linear(1, 1), 8, {"iteration": "8"})
    assert files.weights_at_hand() == {
        n: files.folder / f"checkpoint_{n}.safetensors" for n in (4, 8)
    }
    files.make_best(4)
    assert files.weights_at_hand()[4] == files.folder / "best.safetensors"
    before = (files.folder / "best.safetensors").stat()
    files.make_best(4)
    assert (files.folder / "best.safetensors").stat() == before, "it is that already"
    for content in (b"", b"spoilt"):
        (files.folder / "best.safetensors").write_bytes(content)
        assert files.weights_at_hand()[4].name == "checkpoint_4.safetensors"


def test_a_file_that_is_no_state_is_named(files):
    files.save_state({"iteration": 1}, 1)
    with pytest.raises(CheckpointError, match=r"state_1\.pt is no state of a training"):
        files.load_state()

"""One training per folder, whatever happened to the one before."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.training import lock
from em_blocks.training.lock import NAME, TrainingLock

HOLD = """
import sys, time
from pathlib import Path
from em_blocks.training.lock import TrainingLock
with TrainingLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "setup" / "checkpoints"


def test_a_second_training_is_refused_and_the_first_one_is_named(folder):
    with TrainingLock(folder):
        with pytest.raises(RefusedError) as refused, TrainingLock(folder):
            pytest.fail("two trainings hold one folder")
        owner = f"{socket.gethostname()}:{os.getpid()}:"
        assert owner in str(refused.value) and "--output" in str(refused.value)
        assert (folder / NAME).read_text().startswith(owner)
    with TrainingLock(folder):
        pass


def test_two_spellings_of_a_folder_are_one_folder(folder, tmp_path):
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    with TrainingLock(folder), pytest.raises(RefusedError), TrainingLock(tmp_path / "link"):
        pass


def test_what_was_made_for_the_lock_alone_is_removed(folder, tmp_path):
    with TrainingLock(folder):
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with TrainingLock(folder):
        (folder / "weights").touch()
    assert [path.name for path in folder.iterdir()] == ["weights"]


def test_the_lock_of_a_killed_training_is_taken_over_at_once(folder):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RefusedError, match=f":{holder.pid}:"), TrainingLock(folder):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (folder / NAME).exists(), "nobody removed it"
    with TrainingLock(folder):
        assert f":{os.getpid()}:" in (folder / NAME).read_text()


def test_many_that_start_at_once_hold_it_one_after_the_other(folder):
    folder.mkdir(parents=True)
    inside, most, won = [], [], []

    def start():
        while True:
            try:
                with TrainingLock(folder):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.002)
                    inside.pop()
                won.append(1)
                return
            except RefusedError:
                time.sleep(0.001)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 8 and max(most) == 1


def left_by_another_host(folder):
    """A lock file that no process of this host holds."""
    folder.mkdir(parents=True)
    (folder / NAME).write_text("another-host:1:2026-01-01T00:00:00")
    return folder / NAME


def test_a_silent_owner_on_another_host_is_dead(folder, monkeypatch):
    path = left_by_another_host(folder)
    os.utime(path, (time.time() - 200, time.time() - 200))
    began = time.monotonic()
    with TrainingLock(folder):
        assert time.monotonic() - began < 5
    left_by_another_host(folder.with_name("other"))
    monkeypatch.setattr(lock, "LOST_AFTER_S", 1.5)
    began = time.monotonic()
    with TrainingLock(folder.with_name("other")):
        assert 1 < time.monotonic() - began < 20


def test_an_owner_on_another_host_that_shows_life_is_named(folder):
    path = left_by_another_host(folder)
    beat = threading.Timer(0.5, os.utime, (path,))
    beat.start()
    with pytest.raises(RefusedError, match="another-host:1"), TrainingLock(folder):
        pass
    beat.join()
    assert "another-host" in path.read_text(), "its lock is left alone"


def test_an_owner_shows_life(folder, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    with TrainingLock(folder):
        os.utime(folder / NAME, (1, 1))
        deadline = time.monotonic() + 10
        while (folder / NAME).stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (folder / NAME).stat().st_mtime > time.time() - 60


@pytest.mark.parametrize("in_the_way", ["setup", "setup/checkpoints"])
def test_a_file_in_the_way_is_one_clear_paragraph(folder, tmp_path, in_the_way):
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot write to .*checkpoints"), TrainingLock(folder):
        pass
    assert path.read_text() == "mine"

"""The TensorBoard log: what it holds, and that a full disk does not stop a training."""

import resource
import struct
from contextlib import contextmanager

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from em_blocks.training.records.tensorboard import TensorBoardRecord


def events(folder):
    """Events of the one log in a folder, by the framing of TFRecord files."""
    (path,) = folder.glob("events.out.tfevents.*")
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


@contextmanager
def running(folder, iteration=0):
    log = TensorBoardRecord(folder)
    log.start(iteration, {})
    yield log
    log.finish("finished", None)


def test_points_and_pictures_are_there_when_it_is_closed(tmp_path):
    picture = np.zeros((4, 5, 3), np.uint8)
    with running(tmp_path / "log", 30) as log:
        log.metrics(31, {"train/loss": 0.25})
        log.picture(32, "snapshot", picture)
    *_, start, loss, image = events(tmp_path / "log")
    assert (start.step, start.session_log.status) == (30, SessionLog.START)
    (point,) = loss.summary.value
    assert (loss.step, point.tag, point.simple_value) == (31, "train/loss", 0.25)
    (shown,) = image.summary.value
    assert (image.step, shown.tag) == (32, "snapshot")
    assert (shown.image.height, shown.image.width) == (4, 5)


@pytest.fixture
def full_disk():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_be_written_is_given_up_and_said_once(tmp_path, full_disk, caplog):
    with running(tmp_path) as log:
        full_disk(500)
        for iteration in range(2000):  # more than any buffer holds
            log.metrics(iteration, {"train/loss": 1.0})
    assert caplog.text.count("cannot be written (File too large)") == 1


def test_a_file_in_the_place_of_the_log_is_said(tmp_path, caplog):
    (tmp_path / "log").touch()
    with running(tmp_path / "log") as log:
        log.metrics(1, {"train/loss": 1.0})
    assert "cannot be written" in caplog.text


def test_names_with_blanks_are_written_without_a_warning_each(tmp_path, caplog):
    with running(tmp_path / "log") as log:
        log.metrics(1, {"validation/phantom of seed 3": 0.5})
    assert [v.tag for e in events(tmp_path / "log") for v in e.summary.value] == [
        "validation/phantom_of_seed_3"
    ]
    assert caplog.text == ""

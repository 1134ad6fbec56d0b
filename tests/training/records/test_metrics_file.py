"""The file of curves: what it holds after a kill, a resumption and a full disk."""

import json
import math

import pytest

from em_blocks.training.records.metrics_file import MetricsFile, metrics_of


@pytest.fixture
def started():
    """A function that begins a record; all are finished at the end of the test."""
    records = []

    def start(path, iteration=0):
        records.append(MetricsFile(path))
        records[-1].start(iteration, {})
        return records[-1]

    yield start
    for record in records:
        record.finish("finished", None)


def measure(record, *steps):
    for step in steps:
        record.metrics(step, {"train/loss": step / 4, "rate": 0.5})


def test_points_come_back_by_name_while_the_training_runs(started, tmp_path):
    record = started(tmp_path / "metrics.jsonl")
    measure(record, 10, 20)
    found = metrics_of(tmp_path).read()
    assert found == {}
    found = MetricsFile(tmp_path / "metrics.jsonl").read()
    assert found["train/loss"].steps == [10, 20] and found["train/loss"].values == [2.5, 5.0]
    assert found["rate"].values == [0.5, 0.5]


def test_a_resumed_training_replaces_what_came_after_its_state(started, tmp_path):
    first = started(tmp_path / "m")
    measure(first, 10, 20, 30)  # killed: never finished
    second = started(tmp_path / "m", 20)
    second.metrics(20, {"train/loss": 9.0})  # a validation that is repeated
    second.metrics(30, {"train/loss": 7.0})
    second.finish("finished", None)
    loss = second.read()["train/loss"]
    assert (loss.steps, loss.values) == ([10, 20, 30], [2.5, 9.0, 7.0])


def test_half_a_line_of_a_killed_process_is_ignored_and_removed(started, tmp_path):
    measure(started(tmp_path / "m"), 10)
    with (tmp_path / "m").open("a") as file:
        file.write('{"step": 20, "time": 3.0, "val')
    assert MetricsFile(tmp_path / "m").read()["rate"].steps == [10]
    measure(started(tmp_path / "m", 10), 20)
    assert [json.loads(line)["step"] for line in (tmp_path / "m").read_text().splitlines()] == [10, 20]


def test_a_loss_that_is_no_number_is_null(started, tmp_path):
    record = started(tmp_path / "m")
    record.metrics(1, {"loss": math.nan, "norm": math.inf})
    assert record.read()["loss"].values == record.read()["norm"].values == [None]


def test_a_folder_that_cannot_be_written_is_no_end_of_the_training(started, tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    record = started(tmp_path / "file" / "m")
    measure(record, 10)
    record.finish("finished", None)
    assert "goes on without them" in caplog.text
    assert record.read() == {}

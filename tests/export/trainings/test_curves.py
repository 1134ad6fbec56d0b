"""Curves of trainings as CSV, TensorBoard logs, and runs of MLflow."""

import csv
import importlib.util
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.export.trainings.curves_csv import write_csv
from em_blocks.export.trainings.mlflow import write_mlflow
from em_blocks.export.trainings.tensorboard import write_tensorboard
from em_blocks.training.records.recorded import recorded_in
from recorded_training import write_training

SCORE = "validation/affinities/cut_ap"


@pytest.fixture
def training(tmp_path):
    return recorded_in(write_training(tmp_path / "one"))


def events(path):
    """Events of a log, by the framing of TFRecord files."""
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_a_csv_has_a_row_per_point(training, tmp_path):
    training.curves()
    numbered = training._replace(number=7)
    write_csv([training, numbered], tmp_path / "out" / "curves.csv")
    with (tmp_path / "out" / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (8 + 2)
    assert {row["training"] for row in rows} == {str(training.folder), "7"}
    scores = [row for row in rows if row["metric"] == SCORE and row["training"] == "7"]
    assert [(row["step"], row["value"]) for row in scores] == [("4", "0.25"), ("8", "0.125")]
    assert float(scores[0]["time"]) > 1e9


def test_what_is_no_number_is_empty_in_a_csv_and_no_point_of_a_log(training, tmp_path):
    curves = training.curves()
    curves["train/loss"].values[3] = None
    without = training._replace(read_curves=lambda: curves)
    write_csv([without], tmp_path / "curves.csv")
    assert sum(line.endswith(",") for line in (tmp_path / "curves.csv").read_text().splitlines()) == 1
    write_tensorboard([without], tmp_path / "logs")
    (log,) = (tmp_path / "logs" / "one").iterdir()
    steps = [e.step for e in events(log) for v in e.summary.value if v.tag == "train/loss"]
    assert steps == [1, 2, 3, 5, 6, 7, 8]


def test_a_log_has_the_points_with_their_times(training, tmp_path):
    write_tensorboard([training, training._replace(number=3)], tmp_path / "logs")
    (log,) = (tmp_path / "logs" / "3_tiny").iterdir()
    first, *points = events(log)
    assert first.file_version == "brain.Event:2"
    series = training.curves()["train/loss"]
    found = [(e.step, e.summary.value[0].simple_value, e.wall_time) for e in points
             if e.summary.value[0].tag == "train/loss"]
    assert found == [
        (step, pytest.approx(value), time)
        for step, value, time in zip(series.steps, series.values, series.times, strict=True)
    ]
    with pytest.raises(RefusedError, match="3_tiny exist"):
        write_tensorboard([training._replace(number=3)], tmp_path / "logs")


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is installed")
def test_without_mlflow_it_is_said_how_to_get_it(training, tmp_path):
    with pytest.raises(ConfigError, match="pip install mlflow"):
        write_mlflow([training], str(tmp_path))


def test_runs_of_mlflow_have_settings_and_curves_and_are_replaced(training, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is no part of em_blocks")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):
        write_mlflow([training], uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("em_blocks").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED" and run.data.params["training.seed"] == "1"
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(n, 1 / n) for n in range(1, 9)]

"""Trainings as runs of an MLflow tracking store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice

from em_blocks.errors import ConfigError
from em_blocks.training.records.compare import leaves
from em_blocks.training.records.recorded import Recorded

EXPERIMENT = "em_blocks"
_AT_ONCE, _PARAMS_AT_ONCE, _LONGEST = 1000, 100, 500  # limits of MLflow
_STATES = {"finished": "FINISHED", "stopped": "KILLED", "dead": "KILLED", "running": "RUNNING"}


def write_mlflow(trainings: Sequence[Recorded], uri: str) -> None:
    """Add the trainings to the experiment "em_blocks" of a tracking store.

    A training that is there already (by its identity) is replaced.

    Parameters
    ----------
    uri : str
        Of the store: http://..., sqlite:///file.db, or a folder.

    Raises
    ------
    ConfigError
        If mlflow is not installed.
    """
    try:
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise ConfigError(
            "mlflow is not installed, which this export needs: pip install mlflow. (It is no part of "
            "em_blocks[all]: it brings a hundred packages.)"
        ) from error
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    for training in trainings:
        _write(client, experiment, training)


def _write(client, experiment: str, training: Recorded) -> None:
    from mlflow.entities import Metric, Param

    document = training.document
    uid = document.get("uid") or str(training.folder)
    for run in client.search_runs([experiment], f"tags.uid = '{uid}'"):
        client.delete_run(run.info.run_id)
    tags = {
        "uid": uid, "folder": str(training.folder), "command": document.get("command", ""),
        "host": document.get("host") or "", "mlflow.runName": training.label,
        "commit": ((document.get("git") or {}).get("em_blocks") or {}).get("commit", ""),
    }
    run = client.create_run(experiment, start_time=_ms(document.get("started")), tags=tags)
    settings = (Param(key, str(value)[:_LONGEST]) for key, value in leaves(document["config"]))
    for some in _batches(settings, _PARAMS_AT_ONCE):
        client.log_batch(run.info.run_id, params=some)
    points = (
        Metric(name, value, int(time * 1000), step)
        for name, series in training.curves().items()
        for step, value, time in zip(series.steps, series.values, series.times, strict=True)
        if value is not None
    )
    for some in _batches(points, _AT_ONCE):
        client.log_batch(run.info.run_id, metrics=some)
    state = _STATES.get(document.get("state", ""), "FAILED")
    client.set_terminated(run.info.run_id, state, _ms(document.get("updated")))


def _batches(items: Iterator, n: int) -> Iterator[list]:
    while some := list(islice(items, n)):
        yield some


def _ms(time: str | None) -> int | None:
    return int(datetime.fromisoformat(time).timestamp() * 1000) if time else None

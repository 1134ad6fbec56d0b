"""Trainings as runs of Sacred, in a MongoDB of Omniboard and other readers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from em_blocks.db.trainings.sacred import sacred_database, write_run
from em_blocks.errors import ConfigError
from em_blocks.training.records.recorded import Recorded

_STATES = {
    "finished": "COMPLETED", "stopped": "INTERRUPTED", "dead": "INTERRUPTED", "running": "RUNNING",
}


def write_sacred(trainings: Sequence[Recorded], address: str) -> list[int]:
    """Write trainings as Sacred's MongoObserver would have; returns the `_id` of each.

    A training that was exported before keeps its `_id`, and is replaced.

    Parameters
    ----------
    address : str
        Of the MongoDB, as of the run database. The path of a URI names the database; default: sacred.

    Raises
    ------
    ConfigError
        If a training has no identity (its record is of an earlier version).
    """
    for training in trainings:
        if "uid" not in training.document:
            raise ConfigError(
                f"The record of the {training} has no `uid`: an earlier version wrote it, and another "
                "export would add it a second time. Continue it with --resume, which gives it one."
            )
    with sacred_database(address) as database:
        return [
            write_run(database, one.document["uid"], _run(one), one.curves()) for one in trainings
        ]


def _run(training: Recorded) -> dict:
    document = training.document
    state = _STATES.get(document["state"], "FAILED")
    updated = _time(document["updated"])
    best, score = document.get("best"), document["config"]["training"]["score"]
    return {
        "format": "MongoObserver-0.7.0",
        "experiment": _experiment(document),
        "command": "train",
        "config": document["config"] | {"seed": document["seed"]},
        "meta": {"command": "train", "options": {"--name": training.label}},
        "host": {
            "hostname": document["host"], "python_version": document["versions"]["python"],
            "os": ["", ""], "cpu": document["device"], "ENV": {},
        },
        "status": state,
        "start_time": _time(document["started"]),
        "heartbeat": updated,
        **({} if state == "RUNNING" else {"stop_time": updated}),
        **({"fail_trace": [document["reason"]]} if state == "FAILED" else {}),
        "result": best[score] if best else None,
        "resources": [], "artifacts": [], "captured_out": "",
    }


def _experiment(document: dict) -> dict:
    commits = (document.get("git") or {}).items()
    return {
        "name": document["setup"], "base_dir": "", "sources": [], "mainfile": "",
        "dependencies": [f"{name}=={version}" for name, version in document["versions"].items()],
        "repositories": [{"url": name, **commit} for name, commit in commits if commit],
    }


def _time(text: str) -> datetime:
    """Return a time as Sacred has it: UTC without saying so."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)

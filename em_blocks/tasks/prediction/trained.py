"""Predictions with the weights of a recorded training: found before, recorded after."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, model_validator

from em_blocks.config import resolve_path
from em_blocks.db.connect import ServerError
from em_blocks.db.trainings.run_database import run_address, run_database
from em_blocks.errors import ConfigError, DatabaseError
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.prediction.options import Training

log = logging.getLogger(__name__)


def _setup_or_training(schema: dict) -> None:
    schema["required"].remove("setup")
    schema["anyOf"] = [{"required": ["setup"]}, {"required": ["training"]}]


class OfTraining(BlockwiseTask):
    """A task with a network: a setup and a checkpoint, or the training that made them."""

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {"training", "training_db"}
    model_config = ConfigDict(json_schema_extra=_setup_or_training)

    training: Training | None = Field(
        None,
        description="Instead of `setup`: a training of the run database by its number, perhaps with the "
        'weights ("3:2500"), or its folder. Setup and weights are verified to belong together.',
    )
    training_db: str | None = Field(
        None,
        description="Run database of `training`: MongoDB host or URI, file:PATH of a private file with "
        "one, or a folder. Default: the environment variable EM_BLOCKS_DB.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_training(cls, values: Any, info: ValidationInfo) -> Any:
        """Find setup and weights of a training that was not found yet."""
        if not isinstance(values, dict):
            return values
        if values.get("setup") is None and values.get("training") is None:
            raise ConfigError(
                "The config names no network: give `setup`, a folder, or `training`, the number or the "
                "folder of a recorded training. A run that was begun with --run-id 3 is found by other "
                "verbs with --set training=3, or with that key in its config."
            )
        if not isinstance(values.get("training"), (int, str)):
            return values
        return of_training(values, (info.context or {}).get("folder"))

    def stored_config(self) -> dict:
        return {k: v for k, v in super().stored_config().items() if k != "training_db"}

    def publish(self) -> None:
        record_prediction(self)


def of_training(values: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Return the values of a config with setup and weights of the training that it names.

    Parameters
    ----------
    values : dict
        With `training`, a number or a folder.
    folder : Path or None
        That relative paths of the config count from.

    Raises
    ------
    ConfigError, CheckpointError, DatabaseError
        If the training is not found, or its parts do not belong together.
    """
    from em_blocks.training.records.resolve import resolve_training

    if values.get("setup") is not None:
        raise ConfigError(
            f"The config names the setup {values['setup']} and the training {values['training']}, which "
            "has a setup of its own. Leave one of them out (the option --run-id replaces `setup`)."
        )
    said = str(values["training"])
    name = said if said.partition(":")[0].isdecimal() else resolve_path(said, folder)
    found = resolve_training(values.get("training_db"), name, values.get("checkpoint"))
    return values | {
        "setup": str(found.folder), "checkpoint": str(found.checkpoint), "training": found.lineage(),
    }


def record_prediction(task: OfTraining) -> None:
    """Record a prediction that is done in the run database, if that knows its training."""
    address, lineage = run_address(task.training_db), task.training
    if address is None or lineage is None or lineage.uid is None:
        return
    key = f"{lineage.uid}/{lineage.sha256}/{task.run}/{task.outputs_root()}"
    try:
        with run_database(address) as store:
            store.prepare()
            if (training := store.training_of(lineage.uid)) is not None:
                store.save_prediction(key, _document(task, training["_id"]))
    except (DatabaseError, ServerError) as error:
        log.warning("the run database has no document of this prediction, which is done: %s", error)


def _document(task: OfTraining, number: int) -> dict:
    from em_blocks.training.records.origin import versions

    return {
        "training": task.training.model_dump() | {"number": number}, "run": task.run,
        "output": task.outputs_root(),
        "outputs": {spec.name: spec.path for spec in task.output_specs()},
        "sources": {name: str(said) for name, said in task.sources().items()},
        "config": task.stored_config(), "host": socket.gethostname(), "versions": versions(),
        "state": "done",
    }

"""Predictions with the weights of a recorded training: found before, recorded after."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from em_blocks.config import resolve_path
from em_blocks.db.connect import ServerError
from em_blocks.db.run_database import run_address, run_database
from em_blocks.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from em_blocks.tasks.prediction.predict import Predict

log = logging.getLogger(__name__)


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


def record_prediction(task: Predict) -> None:
    """Record a prediction that is done in the run database of its training, if it has one."""
    address = run_address(task.training_db)
    if address is None or task.training is None or task.training.number is None:
        return
    document = {
        "training": task.training.model_dump(), "run": task.run, "output": task.output,
        "outputs": {spec.name: spec.path for spec in task.output_specs()}, "raw": str(task.raw),
        "config": task.stored_config(), "host": socket.gethostname(), "state": "done",
    }
    key = f"{task.training.uid}/{task.training.sha256}/{task.run}/{task.output}"
    try:
        with run_database(address) as store:
            store.prepare()
            number = store.save_prediction(key, document)
    except (DatabaseError, ServerError) as error:
        log.warning("the run database has no document of this prediction, which is done: %s", error)
    else:
        log.info("prediction %d of the run database", number)

"""What a worker needs to know, handed over in a file: never on a command line."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from em_blocks.tasks.base import BlockwiseTask


@dataclass(frozen=True)
class Job:
    """One run as a worker sees it.

    Attributes
    ----------
    task_class : str
        ``module:Class`` of the task.
    config : dict
        The task's config, paths made absolute.
    measured : dict
        Values measured once for the run.
    uri : str
        Address of the database, password included: the file is private.
    epoch : int
        Of the scheduler that started the worker.
    """

    task_class: str
    config: dict
    measured: dict
    uri: str
    epoch: int

    @classmethod
    def of(cls, task: BlockwiseTask, *, measured: dict, uri: str, epoch: int) -> Job:
        kind = type(task)
        return cls(
            task_class=f"{kind.__module__}:{kind.__qualname__}",
            config=task.model_dump(mode="json"),
            measured=measured,
            uri=uri,
            epoch=epoch,
        )

    def task(self) -> BlockwiseTask:
        """The task, validated again."""
        module, name = self.task_class.split(":")
        return getattr(importlib.import_module(module), name).from_dict(self.config)

    def save(self, path: Path) -> None:
        """Write the job so that only its owner can read it."""
        temporary = path.with_suffix(".new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text()))

"""The session file: everything that a worker needs, passed in a private file, not on a command line."""

from __future__ import annotations

import importlib
import json
import operator
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.cluster import LAUNCHERS


@dataclass(frozen=True)
class Job:
    """One run, as its workers are told.

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
    uri: str = field(repr=False)
    epoch: int

    @classmethod
    def of(cls, task: BlockwiseTask, *, measured: dict, uri: str, epoch: int) -> Job:
        """Return the job of a task. Raises `ConfigError` if workers cannot import its class."""
        check_importable(task)
        kind = type(task)
        config = task.model_dump(mode="json")
        if task.launcher not in LAUNCHERS.builtin:
            config["launcher"] = "external"  # its package need not be installed where workers run
        return cls(
            task_class=f"{kind.__module__}:{kind.__qualname__}",
            config=config,
            measured=measured,
            uri=uri,
            epoch=epoch,
        )

    def task(self) -> BlockwiseTask:
        """Return the task, validated again."""
        module, name = self.task_class.split(":")
        kind = operator.attrgetter(name)(importlib.import_module(module))
        return kind.from_dict(self.config)

    def save(self, path: Path) -> None:
        """Write the job so that only its owner can read it."""
        save_private(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text()))


def check_importable(task: BlockwiseTask) -> None:
    """Raise `ConfigError` unless a worker process can import the class of a task."""
    kind = type(task)
    if reason := _why_not_importable(kind):
        raise ConfigError(
            f"The task class {kind.__qualname__} {reason}, so worker processes cannot import it and "
            "each would end at its start. Put the class into a module (a .py file that `import` finds), "
            "or do its blocks in this process: run(task, serial=True)."
        )


def _why_not_importable(kind: type) -> str | None:
    module = kind.__module__
    if module == "__main__":
        return "is defined in __main__, which is a notebook, a prompt or the script itself"
    if "<locals>" in kind.__qualname__:
        return "is defined inside a function"
    top = module.partition(".")[0]
    if not any(finder.find_spec(top, None) for finder in sys.meta_path):
        return f"is defined in {module}, a module that `import` does not find"
    try:
        found = operator.attrgetter(kind.__qualname__)(importlib.import_module(module))
    except AttributeError:
        found = None
    redefined = f"was reloaded or redefined: it is not what the module {module} holds now"
    return None if found is kind else redefined


@dataclass(frozen=True)
class Session:
    """Address and secret by which workers take part in one start of a run.

    Attributes
    ----------
    steps : list of Job
        Of the steps whose blocks it may be given.
    address : (str, int)
        Of the scheduler.
    secret : str
        Which it must prove to know.
    """

    steps: list[Job]
    address: tuple[str, int]
    secret: str = field(repr=False)

    def save(self, path: Path) -> None:
        """Write the session so that only its owner can read it."""
        save_private(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Session:
        """Read a session. Raises `RefusedError` if its file no longer exists."""
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError as error:
            raise RefusedError(
                f"There is no session {path}: the run has ended, or this host does not see its folder. "
                "Nothing is left for this worker to do."
            ) from error
        return cls([Job(**step) for step in values["steps"]], tuple(values["address"]),
                   values["secret"])


def save_private(path: Path, values: dict) -> None:
    """Write JSON atomically, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(values, file, allow_nan=False)
    temporary.replace(path)


def session_path(task: BlockwiseTask) -> Path:
    """Return the path of the session file of a run whose first step is `task`."""
    return task.home / "sessions" / f"{task.run}.json"

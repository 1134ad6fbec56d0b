"""The places that a task reads and writes, and that they lie apart."""

from __future__ import annotations

from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.volumes.stores.apart import check_apart, check_outside, paths_in


def input_places(task: BlockwiseTask) -> dict[str, str]:
    """Return paths and URLs that a task reads, by the keys of its config."""
    return dict(paths_in(task.model_dump(mode="json", exclude=task.operational | task.written)))


def output_places(task: BlockwiseTask) -> dict[str, str]:
    """Return paths and URLs of the volumes and tables that a task writes, by their names."""
    return {o.name: o.path for o in task.output_specs() if o.ledger_path is not None}


def check_places(task: BlockwiseTask) -> None:
    """Raise `ConfigError` where an output is, holds, or lies in something that the task reads.

    Nor may the folder of logs and the database lie in it.
    """
    grown = task.grown_inputs()
    inputs = {name: path for name, path in input_places(task).items() if name not in grown}
    check_apart(inputs, output_places(task))
    check_outside(inputs, task.home, name="run_dir")


def places_of(config: RunConfig) -> dict[str, str]:
    """Return all paths and URLs of a config, of any kind, but for its container or folder of outputs."""
    return dict(paths_in(config.model_dump(mode="json", exclude=config.operational | {"output"})))

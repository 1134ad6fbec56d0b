"""Job scripts of workers: for sites where people submit by hand, and for arrays of workers."""

from __future__ import annotations

import shlex
from pathlib import Path

from em_blocks.runtime.launch import contained, lsf_options, slurm_options, worker_variables
from em_blocks.tasks.base import BlockwiseTask


def slurm_script(task: BlockwiseTask, command: list[str], logs: Path, n: int) -> str:
    """A script for sbatch: `n` workers as a job array. Nothing in it is secret."""
    lines = [*slurm_options(task), f"--job-name={task.run}", f"--array=1-{n}",
             f"--output={logs}/worker-%A_%a.log", "--open-mode=append"]
    # The queue's name of the worker tells the scheduler when its job is gone.
    name = 'export EM_BLOCKS_SLOT="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    return _script([f"#SBATCH {line}" for line in lines], task, command, name)


def lsf_script(task: BlockwiseTask, command: list[str], logs: Path, n: int) -> str:
    """A script for ``bsub <``: `n` workers as a job array."""
    options = lsf_options(task)
    pairs = [" ".join(options[k:k + 2]) for k in range(0, len(options), 2)]
    lines = [*pairs, f'-J "{task.run}[1-{n}]"', f"-o {logs}/worker-%J_%I.log"]
    return _script([f"#BSUB {line}" for line in lines], task, command)


def hand_script(task: BlockwiseTask, config: Path, overrides: tuple[str, ...]) -> str:
    """A script that lets workers join the run of `config`, whoever submits it."""
    sets = [part for override in overrides for part in ("--set", override)]
    command = ["em-blocks", "join", str(config.absolute()), *sets, "--wait-min=60"]
    command = contained(task.container, command, task.home)
    logs = task.home / "logs" / task.run
    if task.launcher == "lsf":
        return lsf_script(task, command, logs, task.num_workers)
    if task.launcher == "slurm":
        return slurm_script(task, command, logs, task.num_workers)
    return _script([], task, command)


def _script(
    directives: list[str], task: BlockwiseTask, command: list[str], *further: str
) -> str:
    variables = worker_variables(task.cluster.cpus)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value]
    lines = ["#!/bin/bash", *directives, *exports, *further, f"exec {shlex.join(command)}", ""]
    return "\n".join(lines)

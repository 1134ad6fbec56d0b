"""Job scripts of workers: for sites where people submit by hand, and for arrays of workers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from em_blocks.runtime.launchers.base import contained, lsf_options, slurm_options, worker_variables
from em_blocks.tasks.base import BlockwiseTask


def slurm_script(
    task: BlockwiseTask, command: list[str], logs: Path, n: int, *, name: str,
    remarks: Sequence[str] = (),
) -> str:
    """A script for sbatch: `n` workers as a job array. Nothing in it is secret."""
    # Not queued again by Slurm, minutes later: the scheduler sees sooner what is missing.
    lines = [*_one_each(slurm_options(task)), f"--job-name={name}", f"--array=1-{n}", "--no-requeue",
             f"--output={logs}/worker-%A_%a.log", "--open-mode=append"]
    # The queue's name of the worker tells the scheduler when its job is gone.
    slot = 'export EM_BLOCKS_SLOT="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
    return _script([*remarks, *(f"#SBATCH {line}" for line in lines)], task, command, slot)


def lsf_script(
    task: BlockwiseTask, command: list[str], logs: Path, n: int, *, remarks: Sequence[str] = ()
) -> str:
    """A script for ``bsub <``: `n` workers as a job array."""
    lines = [*_one_each(lsf_options(task)), f'-J "{task.run}[1-{n}]"', f"-o {logs}/worker-%J_%I.log"]
    return _script([*remarks, *(f"#BSUB {line}" for line in lines)], task, command)


def _one_each(options: list[str]) -> list[str]:
    """Lines for directives: every option with its values, if they are words of their own."""
    lines: list[str] = []
    for word in map(shlex.quote, options):
        if word.startswith("-") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def hand_script(
    verb: str, task: BlockwiseTask, config: Path, overrides: tuple[str, ...]
) -> str:
    """A script that lets workers join the run of `config`, whoever submits it.

    Parameters
    ----------
    verb : str
        Of the command that runs the config.
    task : BlockwiseTask
        Its first step.
    """
    # Workers learn the database from the session file: its password is nothing for a script.
    shown = [override for override in overrides if not override.startswith("db_host=")]
    sets = [part for override in shown for part in ("--set", override)]
    program = "em-blocks" if task.container else str(Path(sys.executable).with_name("em-blocks"))
    command = [program, "join", str(config.absolute()), *sets, "--wait-min=60"]
    command = contained(task.container, command, task.home)
    logs = task.home / "logs" / task.run
    logs.mkdir(parents=True, exist_ok=True)  # Slurm kills a job that cannot write its log
    start = shlex.join(["em-blocks", verb, str(config), *sets, "--set", "launcher=external"])
    remarks = [
        f"# {task.num_workers} workers for the run {task.run}. Submit this by sbatch or bsub, and start",
        f"#   {start}",
        "# on a host that they reach, before or after it. Workers wait for it, and end with it.",
    ]
    if task.launcher == "lsf":
        return lsf_script(task, command, logs, task.num_workers, remarks=remarks)
    if task.launcher == "slurm":
        return slurm_script(task, command, logs, task.num_workers, name=task.run, remarks=remarks)
    return _script(remarks, task, command)


def _script(
    directives: list[str], task: BlockwiseTask, command: list[str], *further: str
) -> str:
    variables = worker_variables(task.cluster.cpus)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value]
    lines = ["#!/bin/bash", *directives, *exports, *further, f"exec {shlex.join(command)}", ""]
    return "\n".join(lines)

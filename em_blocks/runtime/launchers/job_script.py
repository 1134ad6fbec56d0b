"""Job scripts of workers: for sites where people submit by hand, and for arrays of workers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from em_blocks.runtime.launchers.base import launcher_class
from em_blocks.runtime.launchers.environment import contained, worker_variables
from em_blocks.tasks.base import BlockwiseTask

_ADDRESSES = ("db_host=", "training_db=")
"""Overrides that may hold a password."""


def job_script(task: BlockwiseTask, command: list[str], lines: Sequence[str]) -> str:
    """Return a bash script that starts one worker by `command`. Nothing in it is secret.

    Parameters
    ----------
    lines : sequence of str
        Remarks, directives of the cluster, and exports, in this order.
    """
    variables = worker_variables(task.cluster.cpus)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value]
    return "\n".join(["#!/bin/bash", *lines, *exports, f"exec {shlex.join(command)}", ""])


def one_each(options: list[str]) -> list[str]:
    """Return lines for directives: each option with its values, if they are words of their own."""
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
    """Return a script that lets workers join the run of `config`, whoever submits it.

    Parameters
    ----------
    verb : str
        Of the command that runs the config.
    task : BlockwiseTask
        Its first step.
    """
    # Workers learn the database from the session file: its password must not stand in a script.
    shown = [override for override in overrides if not override.startswith(_ADDRESSES)]
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
    directives = launcher_class(task).directives(task, logs, task.num_workers, task.run)
    return job_script(task, command, [*remarks, *directives])

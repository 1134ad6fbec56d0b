"""``em-blocks replay CONFIG BLOCK``."""

import os
import tempfile
import time
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    load_task,
    opened_store,
    set_option,
    shows_errors,
    step_option,
)
from em_blocks.db.runs import RunStore
from em_blocks.outputs import RunContext
from em_blocks.runtime.launchers.environment import THREAD_VARIABLES, worker_environment
from em_blocks.tasks.base import BlockReport, BlockwiseTask


@click.command(name="replay")
@config_argument
@click.argument("block")
@set_option
@step_option
@shows_errors
def main(config: Path, block: str, overrides: tuple[str, ...], step: str | None) -> None:
    """Do one BLOCK (zi/yi/xi) of CONFIG in this process, into a scratch folder.

    An error shows its traceback here (also under ``python -m pdb``); the run's outputs and
    database stay as they are.
    """
    task = load_task(config, overrides, step)
    # As many threads as a worker has: sums of floats depend on it in the last digit.
    threads = worker_environment(task.num_workers)
    os.environ.update({name: threads[name] for name in THREAD_VARIABLES})
    grid = task.grid()
    chosen = grid.block(_index(block))
    with opened_store(task) as store, tempfile.TemporaryDirectory() as folder:
        measured, known = _recorded(task, store, chosen.key)
        scratch = task.relocated(Path(folder))
        for spec in scratch.output_specs():
            spec.create(grid, fingerprint="replay")
        report, start = BlockReport(), time.perf_counter()
        with scratch.open(RunContext(measured, store, scratch=True)) as process:
            process(chosen, report)
    click.echo(
        f"block {chosen.key} was done in {time.perf_counter() - start:.2f} s "
        f"({', '.join(f'{k} {v:.2f} s' for k, v in report.seconds.items())}); counts {report.counts}"
    )
    if known.get("checksums"):
        # A run of an older version may lack one of them.
        same = report.checksums | known["checksums"] == report.checksums
        click.echo(f"The result {'equals' if same else 'DIFFERS FROM'} the one in the database.")


def _index(block: str) -> tuple[int, int, int]:
    parts = block.split("/")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise click.UsageError(f"BLOCK {block!r} is not of the form zi/yi/xi, for example 0/3/12.")
    return tuple(map(int, parts))


def _recorded(task: BlockwiseTask, store: RunStore, key: str) -> tuple[dict, dict]:
    """Return the run's measured values and the block's document, where the run exists."""
    run, block = store.load(), store.block(key)
    return (run or {}).get("measured") or task.measure(), block or {}

"""``em-blocks verify CONFIG``."""

import json
import sys
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_steps,
    opened_store,
    set_option,
    shows_errors,
    step_option,
)
from em_blocks.errors import EXIT_FAILED_BLOCKS
from em_blocks.runtime.runs.ledgers import reopen
from em_blocks.runtime.runs.verify import damaged_blocks, requeue_damaged


@click.command(name="verify")
@config_argument
@set_option
@step_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], step: str | None, as_json: bool) -> None:
    """Re-read the outputs of CONFIG's run and compare them with the database.

    Missing or damaged blocks are made due again; the next run computes them.
    """
    damaged, n = [], 0
    for task in load_steps(config, overrides, step):
        lost = []
        with opened_store(task) as store:
            with click.progressbar(damaged_blocks(task, store), file=sys.stderr) as found:
                for block, problem in found:
                    n += 1
                    if problem is not None:
                        if not lost:
                            reopen(task)
                        requeue_damaged(store, block, problem)
                        lost.append(block.index)
                        damaged.append({"run": task.run, "block": block.key, "problem": problem})
        if lost:
            reopen(task, lost)
    if as_json:
        click.echo(json.dumps({"verified": n, "damaged": damaged}))
    else:
        for entry in damaged:
            click.echo(f"{entry['run']}, block {entry['block']}: {entry['problem']}")
        click.echo(f"{n} done blocks read, {len(damaged)} damaged and due again.")
    sys.exit(EXIT_FAILED_BLOCKS if damaged else 0)

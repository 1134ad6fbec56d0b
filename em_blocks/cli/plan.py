"""``em-blocks plan CONFIG``."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_steps,
    set_option,
    shows_errors,
    step_option,
)


@click.command(name="plan")
@config_argument
@set_option
@step_option
@click.option("--no-probe", is_flag=True, help="Do not try three blocks for time and memory.")
@json_option
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], step: str | None, no_probe: bool, as_json: bool
) -> None:
    """Check CONFIG and estimate blocks, bytes, memory and time of its run.

    Of several steps only the first is probed: the others need what it writes.
    """
    from em_blocks.runtime.plan import plan

    steps = load_steps(config, overrides, step)
    results = [plan(task, probe=not no_probe and task is steps[0]) for task in steps]
    if as_json:
        values = [asdict(result) for result in results]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))
    else:
        click.echo("\n\n".join(result.text() for result in results))

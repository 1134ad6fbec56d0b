"""``em-blocks plan CONFIG``."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from em_blocks.cli.common import config_argument, json_option, load_task, set_option, shows_errors


@click.command(name="plan")
@config_argument
@set_option
@click.option("--no-probe", is_flag=True, help="Do not try three blocks for time and memory.")
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], no_probe: bool, as_json: bool) -> None:
    """Check CONFIG and estimate blocks, bytes, memory and time of its run."""
    from em_blocks.runtime.plan import plan

    result = plan(load_task(config, overrides), probe=not no_probe)
    click.echo(json.dumps(asdict(result), indent=2) if as_json else result.text())

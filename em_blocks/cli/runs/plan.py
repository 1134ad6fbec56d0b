"""``em-blocks plan CONFIG``."""

from dataclasses import asdict
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_config,
    load_task,
    set_option,
    shows_errors,
    step_option,
)
from em_blocks.json_text import json_text


@click.command(name="plan")
@config_argument
@set_option
@step_option
@click.option("--no-probe", is_flag=True, help="Try no blocks: no time, no memory.")
@json_option
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], step: str | None, no_probe: bool, as_json: bool
) -> None:
    """Check CONFIG and estimate blocks, bytes, memory and time of the rest of its run.

    A few blocks of every step are done in a scratch folder, by as many processes at a time as the run
    has workers; nothing that lasts is written. Steps that read what earlier ones write are tried on
    a copy of a few neighbouring blocks. The time is that of the whole command.

    --json prints one object: run, launcher, num_workers, cpus_per_worker, gpus, probed, steps, total,
    better_block, notes. Every step has run, task, grid, block_shape, blocks, masked, done,
    quarantined, left, read_amplification, bytes_in, bytes_in_are, bytes_out, bytes_out_are,
    seconds_per_block, worker_start_s, memory_mb, wall_s, note, ways; the total has blocks, masked,
    done, left, bytes_in, bytes_out, memory_mb, fixed_s, wall_s, known_wall_s, core_hours, gpu_hours;
    better_block, if there is one, block_shape, read_amplification, wall_s, now_s. What is not
    known is null.
    """
    from em_blocks.runtime.planning.plan import plan
    from em_blocks.runtime.planning.text import plan_text

    only = None if step is None else load_task(config, overrides, step).run
    result = plan(load_config(config, overrides), probe=not no_probe, only=only)
    click.echo(json_text(asdict(result), indent=2) if as_json else plan_text(result))

"""``em-blocks retry CONFIG``."""

import sys
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_config,
    print_report,
    set_option,
    shows_errors,
)


@click.command(name="retry")
@config_argument
@set_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run CONFIG again and also try its quarantined blocks."""
    from em_blocks.runtime.scheduler.pipeline import run_config

    reports = run_config(load_config(config, overrides), requeue=True)
    report = next((report for report in reports if not report.ok), reports[-1])
    print_report(report, as_json)
    sys.exit(report.exit_code)

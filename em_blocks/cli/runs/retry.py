"""``em-blocks retry CONFIG``."""

import sys
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    json_option,
    load_steps,
    print_report,
    set_option,
    shows_errors,
)
from em_blocks.cli.steps import run_all


@click.command(name="retry")
@config_argument
@set_option
@json_option
@shows_errors
def main(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Run CONFIG again and also try its quarantined blocks."""
    reports = run_all(load_steps(config, overrides), requeue=True)
    report = next((report for report in reports if not report.ok), reports[-1])
    print_report(report, as_json)
    sys.exit(report.exit_code)

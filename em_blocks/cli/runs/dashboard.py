"""``em-blocks dashboard CONFIG``: the page of a run."""

from __future__ import annotations

import importlib.util
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from em_blocks.cli.common import (
    config_argument,
    load_config,
    set_option,
    shows_errors,
    watched_steps,
)
from em_blocks.errors import ConfigError

if TYPE_CHECKING:
    from em_blocks.runtime.dashboard.server import Dashboard

HOST = "127.0.0.1"


def page_options(command: Callable) -> Callable:
    """Add the options of a page: --host, --port and --open."""
    for option in (
        click.option("--open", "opens", is_flag=True, help="Open the page in a browser."),
        click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any free one",
                     help="Port of this machine; name one that you forward from another machine."),
        click.option("--host", default=HOST, show_default=True, help="Address to listen on."),
    ):
        command = option(command)
    return command


@click.command(name="dashboard")
@config_argument
@set_option
@page_options
@shows_errors
def main(config: Path, overrides: tuple[str, ...], host: str, port: int, opens: bool) -> None:
    """Show the runs of CONFIG in a web page until Ctrl-C is pressed.

    Progress, rate and time left of every step, a map of its blocks, failures with their tracebacks,
    and workers. It may be started before, during and after the run, reads the database only, and
    goes on by itself when that was away.
    """
    check_installed("`em-blocks status CONFIG --watch` shows the same in this terminal.")
    from em_blocks.runtime.dashboard.server import open_dashboard

    steps = watched_steps(config, overrides)
    title = load_config(config, overrides).run
    with open_dashboard(steps, title=title, host=host, port=port) as dashboard:
        serve_page(dashboard, host, opens)


def check_installed(instead: str) -> None:
    """Raise `ConfigError` if the packages of a page are missing; `instead` says what needs none."""
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise ConfigError(
            "The dashboard needs starlette and uvicorn, which are not installed: pip install "
            f"'em_blocks[dashboard]'. {instead}"
        )


def serve_page(dashboard: Dashboard, host: str, opens: bool) -> None:
    """Say where a page is, and serve it until Ctrl-C is pressed."""
    if not dashboard.is_private:
        click.echo(
            f"Warning: {host} can be reached from other machines, and there is no login and no "
            "encryption: anyone with the address below can read configs' names, hosts and "
            "tracebacks of this run.", err=True,
        )
    click.echo(f"{dashboard.url}\n\nOpen this address in a browser. Press Ctrl-C to stop.")
    if opens:
        webbrowser.open(dashboard.url)
    try:
        dashboard.serve()
    except KeyboardInterrupt:
        click.echo("Stopped.")

"""``em-blocks dashboard CONFIG``: the page of a run."""

import importlib.util
import webbrowser
from pathlib import Path

import click

from em_blocks.cli.common import (
    config_argument,
    load_config,
    set_option,
    shows_errors,
    watched_steps,
)
from em_blocks.errors import ConfigError

HOST = "127.0.0.1"


@click.command(name="dashboard")
@config_argument
@set_option
@click.option("--host", default=HOST, show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any free one",
              help="Port of this machine; name one that you forward from another machine.")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@shows_errors
def main(config: Path, overrides: tuple[str, ...], host: str, port: int, opens: bool) -> None:
    """Show the runs of CONFIG in a web page until Ctrl-C is pressed.

    Progress, rate and time left of every step, a map of its blocks, failures with their tracebacks,
    and workers. It may be started before, during and after the run, reads the database only, and
    goes on by itself when that was away.
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise ConfigError(
            "The dashboard needs starlette and uvicorn, which are not installed: pip install "
            "'em_blocks[dashboard]'. `em-blocks status CONFIG --watch` shows the same in this terminal."
        )
    from em_blocks.runtime.dashboard.server import open_dashboard

    steps = watched_steps(config, overrides)
    title = load_config(config, overrides).run
    with open_dashboard(steps, title=title, host=host, port=port) as dashboard:
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

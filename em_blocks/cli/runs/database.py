"""``em-blocks db start|stop|uri CONFIG``."""

from pathlib import Path

import click

from em_blocks.cli.common import config_argument, load_config, set_option, shows_errors
from em_blocks.db.connect import database_home, redacted, uri_if_running
from em_blocks.db.server import keep, stop_keeping
from em_blocks.errors import DatabaseError


@click.group(name="db")
def main() -> None:
    """The embedded database of a run (configs without 'db_host')."""


@main.command()
@config_argument
@set_option
@shows_errors
def start(config: Path, overrides: tuple[str, ...]) -> None:
    """Start it and keep it up, for mongosh and notebooks; prints its URI."""
    click.echo(keep(_home(config, overrides)))


@main.command()
@config_argument
@set_option
@shows_errors
def stop(config: Path, overrides: tuple[str, ...]) -> None:
    """Stop it, unless a run is using it: then it stops with the run."""
    ended = stop_keeping(_home(config, overrides))
    click.echo("The database has stopped." if ended else "It is in use and stops with its last user.")


@main.command()
@config_argument
@set_option
@shows_errors
def uri(config: Path, overrides: tuple[str, ...]) -> None:
    """Print the address of the database, without starting it."""
    task = load_config(config, overrides)
    address = uri_if_running(task.db_host, task.home)
    if address is None:
        raise DatabaseError(
            f"The embedded database in {database_home(task.home)} does not run. Start it with "
            f"`em-blocks db start {config}`."
        )
    # A configured address may hold a password, which is never printed.
    click.echo(address if task.db_host is None else redacted(address))


def _home(config: Path, overrides: tuple[str, ...]) -> Path:
    task = load_config(config, overrides)
    if task.db_host is not None:
        raise DatabaseError(
            "This config names a database of its own in 'db_host'; em_blocks starts and stops only "
            "embedded ones."
        )
    return database_home(task.home)

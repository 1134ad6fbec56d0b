"""The block shape of a run whose config gives none: as it began, else as workers' memory allows."""

from __future__ import annotations

from typing import TypeVar

from em_blocks.db.connect import connect, database_home, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.tasks.base import RunConfig

Config = TypeVar("Config", bound=RunConfig)


def with_block_shape(config: Config) -> Config:
    """Return `config` with a block shape, if it is one that needs a block shape and gives none.

    A run that began keeps its own, whatever memory its workers have now; a new run has the largest
    block that fits.

    Raises
    ------
    EmBlocksError
        If the database or an input cannot be opened, or no block fits.
    """
    if not config.fits_block or config.block_shape is not None:
        return config
    recorded = _recorded(config)
    return config.fitted() if recorded is None else config.with_block(recorded)


def _recorded(config: RunConfig) -> tuple[int, int, int] | None:
    """Return the block shape that the database has for a run, if it began."""
    if config.db_host is None and not database_home(config.home).exists():
        return None
    with database_uri(config.db_host, config.home) as uri, connect(uri) as client:
        run = RunStore(client, config.db_name, config.first_run).load()
    shape = (run or {}).get("config", {}).get("block_shape")
    return None if shape is None else tuple(shape)

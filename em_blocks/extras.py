"""Packages that only some jobs need: what is missing is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from em_blocks.errors import ConfigError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a failing import of another package into what to install.

    Parameters
    ----------
    name : str
        Of the extra in setup.py, for example "predict".

    Raises
    ------
    ConfigError
        If a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "em_blocks":
            raise
        raise ConfigError(
            f"The package {missing!r} is needed for this but not installed; run "
            f"`pip install 'em_blocks[{name}]'`."
        ) from error

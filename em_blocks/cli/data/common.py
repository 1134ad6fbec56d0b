"""Parts of the commands about data: which data are meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from em_blocks.config import read_json

if TYPE_CHECKING:
    from em_blocks.training.review.inspection import Named


class ClassNames(click.ParamType):
    """ID=NAME, as of ``--class 1=mitochondria``."""

    name = "id=name"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        id, equals, name = value.partition("=")
        if not equals or not id.isdecimal() or not name:
            self.fail(f"{value!r} is not of the form ID=NAME, as 1=mitochondria.", param, ctx)
        return id, name


def class_options(command: Callable) -> Callable:
    """Options that say what a data config leaves open: names of classes, and where files lie."""
    for option in (
        click.option("--folder", type=click.Path(path_type=Path, file_okay=False),
                     help="Where the `file` of the data sets lies [default: the folder of DATA]."),
        click.option("--class", "classes", multiple=True, type=ClassNames(), metavar="ID=NAME",
                     callback=lambda ctx, param, value: dict(value),
                     help="Name of a class id of a data config; may be repeated."),
    ):
        command = option(command)
    return command


def read_data(
    data: Path, classes: dict[str, str], folder: Path | None, overrides: tuple[str, ...] = ()
) -> Named:
    """Read a data config, or the config of a setup.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    from em_blocks.models.config import SetupConfig
    from em_blocks.models.data_config import DataConfig
    from em_blocks.training.review.inspection import Named

    path = data / "config.json" if data.is_dir() else data
    if {"heads", "network"} <= read_json(path).keys():
        config = SetupConfig.from_file(path, overrides)
        training = config.to_train()
        return Named(config, training.sources, training.validation)
    said = {"data": str(path.resolve()), "classes": classes}
    if folder is not None:
        said["folder"] = str(folder.resolve())
    return Named(None, DataConfig.from_dict(said, source=str(path)).sources(), ())

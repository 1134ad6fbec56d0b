"""``em-blocks new organelle NAME``: a setup folder that learns the classes of given data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.data.common import class_options, read_data
from em_blocks.errors import ConfigError, RefusedError

if TYPE_CHECKING:
    from em_blocks.training.review.inspection import Inspection
    from em_blocks.training.review.proposal import Proposal

CONFIG, README, PREDICT = "config.json", "README.md", "predict.json"


@click.group(name="new")
def main() -> None:
    """Write a setup for your own data, every choice explained."""


@main.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path),
              help="Data config (docs/data_configs.md) to train on.")
@click.option("--validation", type=click.Path(exists=True, path_type=Path),
              help="Data config to measure on; without it, scores are of the data that are trained on.")
@class_options
@click.option("--memory-gb", type=click.FloatRange(min=0, min_open=True),
              help="Memory of the GPU, or of the computer without one [default: of this machine].")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder of the setup [default: NAME].")
@shows_errors
def organelle(
    name: str, data: Path, validation: Path | None, classes: dict[str, str], folder: Path | None,
    memory_gb: float | None, output: Path | None,
) -> None:
    """Write a setup that learns the classes of DATA, and the job configs to use it.

    Voxel size, context, normalisation, sizes of network, sample and tile are worked out from the
    data and the memory; README.md in the folder gives the reason of each. `em-blocks train FOLDER`
    trains it as it is.
    """
    from em_blocks.training.review.contrast import shared_contrast
    from em_blocks.training.review.proposal import propose

    output = output or Path(name)
    _check_free(output)
    found = _inspected(data, classes, folder)
    if validation is not None:
        _inspected(validation, classes, folder)
    memory = memory_gb or _memory_of_machine()
    made = propose(
        name, found.crops, memory, has_validation=validation is not None,
        equalized=shared_contrast(one.raw.path for one in found.data),
    )
    sources = {"data": data, "validation": validation or data}
    _write(output, made, {
        key: _said(path, classes, folder, output) for key, path in sources.items()
    }, found)
    click.echo(
        f"{output}/{CONFIG} is a setup of {', '.join(made.classes)}; {output}/{README} explains every "
        f"choice. Look at the data with `em-blocks check-data {output}`, train with `em-blocks train "
        f"{output}`."
    )


def _check_free(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RefusedError(
            f"{output} exists and is not an empty folder; what is in it would be mixed with the new "
            "setup. Give another NAME, or --output FOLDER."
        )


def _inspected(data: Path, classes: dict[str, str], folder: Path | None) -> Inspection:
    """Open and look at a data config; raises what is wrong with it."""
    from em_blocks.training.review.inspection import inspect
    from em_blocks.training.review.problems import raise_all

    named = read_data(data, classes, folder)
    if named.config is not None:
        raise ConfigError(
            f"{data} is a setup, but a data config is needed here: a JSON file of data sets by nickname "
            "(docs/data_configs.md), from which the setup is made."
        )
    found = inspect(named)
    raise_all(found.errors)
    return found


def _memory_of_machine() -> float:
    """Return the memory of the GPU, or of the computer, in GB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 1e9
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _said(data: Path, classes: dict[str, str], folder: Path | None, output: Path) -> dict:
    """How the config names a data config: by paths from its own folder."""
    said: dict = {"data": os.path.relpath(data.resolve(), output.resolve())}
    if classes:
        said["classes"] = classes
    if folder is not None:
        said["folder"] = os.path.relpath(folder.resolve(), output.resolve())
    return said


def _write(output: Path, made: Proposal, data: dict[str, dict], found: Inspection) -> None:
    config = json.loads(json.dumps(made.config))
    config["training"] = {
        "sources": data["data"], "validation": data["validation"], **config["training"]
    }
    job = {
        "kind": "predict", "run": f"{config['name']}_predict", "raw": found.data[0].raw.path,
        "setup": ".", "checkpoint": "best", "output": "predictions.zarr", "num_workers": 1,
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / CONFIG).write_text(compact_json(config))
        (output / PREDICT).write_text(compact_json(job))
        (output / README).write_text(made.readme())
    except OSError as error:
        raise ConfigError(
            f"The setup cannot be written to {output}: {error.strerror or error}. Choose another "
            "--output."
        ) from error


def compact_json(values: dict) -> str:
    """Write JSON with lists of numbers on one line."""
    return _text(values, "") + "\n"


def _text(value: object, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return json.dumps(value)

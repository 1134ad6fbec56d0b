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
    from em_blocks.training.review.recipe import Machine

CONFIG, README = "config.json", "README.md"
PREDICT, THRESHOLD = "predict.json", "threshold.json"


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
    data and the machine; README.md in the folder gives the reason of each, and without a GPU the
    time that the training takes. `em-blocks train FOLDER`
    trains it as it is.
    """
    from em_blocks.training.review.contrast import shared_contrast
    from em_blocks.training.review.proposal import propose

    output = output or Path(name)
    _check_free(output)
    found = _inspected(data, classes, folder)
    if validation is not None:
        _inspected(validation, classes, folder)
    made = propose(
        name, found.crops, _machine(memory_gb), has_validation=validation is not None,
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


def _machine(memory_gb: float | None) -> Machine:
    """Return what this machine trains with; `memory_gb` is said to be its memory."""
    import torch

    from em_blocks.nets.inference import best_device, hardware_precisions
    from em_blocks.training.review.recipe import Machine

    device = best_device()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device).total_memory
    else:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        device.type, memory_gb or found / 1e9, hardware_precisions(device)[-1],
        len(os.sched_getaffinity(0)),
    )


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
    texts = {CONFIG: compact_json(config), README: made.readme()}
    for name, job in _jobs(config["name"], found.data[0].raw.path).items():
        texts[name] = compact_json(job)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (output / name).write_text(text)
    except OSError as error:
        raise ConfigError(
            f"The setup cannot be written to {output}: {error.strerror or error}. Choose another "
            "--output."
        ) from error


def _jobs(name: str, raw: str) -> dict[str, dict]:
    """Make the job configs by their file names: predict all of `raw`, and mark the classes in it."""
    from em_blocks.training.review.proposal import HEAD

    return {
        PREDICT: {
            "kind": "predict", "run": f"{name}_predict", "raw": raw, "setup": ".",
            "checkpoint": "best", "output": "predictions.zarr", "num_workers": 1,
        },
        THRESHOLD: {
            "kind": "threshold", "run": f"{name}_threshold", "threshold": 0.5,
            "prediction": f"predictions.zarr/{HEAD}", "output": "classes.zarr/classes",
        },
    }


def compact_json(values: dict) -> str:
    """Write JSON with lists of numbers on one line."""
    return _text(values, "") + "\n"


def _text(value: object, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key)}: {_text(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    return json.dumps(value)

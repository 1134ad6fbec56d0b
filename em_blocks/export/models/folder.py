"""A model as one folder: a setup that predicts, with all that others need to know of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from em_blocks.export.models.card import card
from em_blocks.export.models.metadata import metadata
from em_blocks.export.models.model import Model
from em_blocks.export.models.package import new_package, write_checksums
from em_blocks.export.models.sample import write_sample
from em_blocks.models.config import SetupConfig
from em_blocks.models.networks.onnx_file import OnnxFile
from em_blocks.models.setup import CHECKPOINTS, CONFIG, NETWORK

ONNX = "model.onnx"


def export_folder(model: Model, output: Path) -> None:
    """Write a model with weights of safetensors.

    Parameters
    ----------
    output : Path
        A folder, or a file that ends in .zip.

    Raises
    ------
    RefusedError
        If `output` exists.
    """
    with new_package(output) as folder:
        if model.config.network.trainable:
            _write_weights(model, folder)
            values = described(model.config)
        else:
            (folder / ONNX).write_bytes(OnnxFile(model.weights).content())
            values = described(model.config)
            values["network"] |= {"file": ONNX}
        write_about(model, folder, values)
        write_checksums(folder)


def _write_weights(model: Model, folder: Path) -> None:
    (folder / CHECKPOINTS).mkdir()
    path = folder / CHECKPOINTS / "best.safetensors"
    if model.weights.suffix == path.suffix:
        shutil.copyfile(model.weights, path)
    else:
        weights = model.network.state_dict()
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    if model.needs_code:
        shutil.copyfile(model.setup.folder / NETWORK, folder / NETWORK)


def described(config: SetupConfig) -> dict[str, Any]:
    """Return the keys of config.json that describe the network: those of its training need its data."""
    return config.model_dump(mode="json", exclude_none=True, exclude={"training"})


def write_about(model: Model, folder: Path, config: dict[str, Any]) -> None:
    """Write config, card, metadata, scores, history and test input of a model."""
    _write_json(folder / CONFIG, config)
    _write_json(folder / "metadata.json", metadata(model))
    history = model.record.get("history", [])
    _write_json(folder / "metrics.json", {
        "iteration": model.iteration, "scores": model.scores(), "history": history,
    })
    _write_json(folder / "training.json", {"training": model.training(), **model.lineage()})
    (folder / "README.md").write_text(card(model))
    write_sample(folder, model.raw, model.outputs)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")

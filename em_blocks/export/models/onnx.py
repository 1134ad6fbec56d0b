"""A trained network as ONNX, for every program that runs networks."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from em_blocks.errors import ConfigError, RunFailedError
from em_blocks.export.models.folder import ONNX, described, write_about
from em_blocks.export.models.model import Model
from em_blocks.export.models.package import new_package, write_checksums
from em_blocks.export.models.sample import compare, sample_outputs
from em_blocks.models.networks.onnx import OnnxNetwork

INPUT = "raw"
AXES = "nczyx"


def export_onnx(model: Model, output: Path) -> None:
    """Write a model whose network is model.onnx: a setup for onnxruntime.

    Parameters
    ----------
    output : Path
        A folder, or a file that ends in .zip.

    Raises
    ------
    RefusedError
        If `output` exists.
    RunFailedError
        If the graph does not give what the network gives.
    """
    with new_package(output) as folder:
        write_onnx(model, folder / ONNX)
        write_about(model, folder, onnx_config(model))
        write_checksums(folder)


def onnx_config(model: Model) -> dict[str, Any]:
    """Return the config of a setup whose network is model.onnx beside it."""
    values = described(model.config)
    factor = getattr(model.network, "tile_factor", None)
    values["network"] = {
        "kind": "onnx", "file": ONNX, "context": list(model.context),
        **({} if factor is None else {"tile_factor": list(factor)}),
    }
    return values


def write_onnx(model: Model, path: Path) -> None:
    """Write the network with its activations as a graph of the outputs by the names of the heads.

    The graph takes tiles of any number and size that the network takes, if it says by `tile_factor`
    which these are; else one tile of the setup's shape.

    Raises
    ------
    ConfigError
        If torch cannot express the network in ONNX.
    RunFailedError
        If the graph gives other values than the network.
    """
    if not model.config.network.trainable:
        raise ConfigError(
            f"The network of {model.config.name} is a file of ONNX already: {model.weights}. Export the "
            "model as a folder, which holds it."
        )
    importlib.import_module("onnxscript")  # of torch.onnx, which hides that it is missing
    heads = list(model.config.heads)
    shape = _traced_shape(model)
    try:
        with _quiet():
            exported = torch.onnx.export(
                _Graph(model.network, heads), (torch.zeros(shape),), dynamo=True,
                input_names=[INPUT], output_names=heads, dynamic_shapes=_dynamic(model),
                external_data=False, verbose=False,
            )
    except Exception as error:  # torch.onnx raises whatever a part of it met
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"torch cannot write the network of {model.config.name} as ONNX: {reason}. Its "
            "network.py uses something that ONNX has no operator for; export it as a folder instead."
        ) from error
    exported.save(path)  # type: ignore[union-attr]
    _check_values(model, path)


class _Graph(nn.Module):
    """A network whose outputs are a tuple in the order of `heads`."""

    def __init__(self, network: Any, heads: list[str]):
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network.predict(raw)
        return tuple(outputs[name] for name in self.heads)


def _traced_shape(model: Model) -> list[int]:
    """Return the shape of the input that torch follows through the network.

    Two tiles of three factors: torch takes sizes of 1, also those within the network, for fixed.
    """
    factor = getattr(model.network, "tile_factor", None)
    if factor is None:
        return [1, 1, *model.raw.shape]
    return [2, 1, *(3 * step + 2 * side for step, side in zip(factor, model.context, strict=True))]


def _dynamic(model: Model) -> tuple[dict[int, Any]] | None:
    """Describe which sizes of the input are free: whole factors, and the context around them."""
    factor = getattr(model.network, "tile_factor", None)
    if factor is None:
        return None
    from torch.export import Dim

    sizes: dict[int, Any] = {0: Dim("n", min=1)}
    for axis, (step, side) in enumerate(zip(factor, model.context, strict=True)):
        tiles = Dim(f"tiles_{AXES[axis + 2]}", min=1)
        sizes[axis + 2] = step * tiles + 2 * side
    return (sizes,)


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep what torch.onnx says of its own steps from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_values(model: Model, path: Path) -> None:
    network = OnnxNetwork.model_validate({**onnx_config(model)["network"], "file": str(path)})
    found = sample_outputs(network.build(model.config.heads), model.config, model.raw)
    wrong = [d for d in compare(model.outputs, found) if not d.ok]
    if wrong:
        listed = ", ".join(f"{d.head} by {d.largest:.3g} (at most {d.accepted:.3g})" for d in wrong)
        raise RunFailedError(
            f"The graph that torch wrote of {model.config.name} gives other values than the network: "
            f"{listed}. It was not kept: predictions through it would be wrong. Export the model as a "
            "folder, or with other versions of torch and onnxscript."
        )

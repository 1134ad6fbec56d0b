"""A package of bioimage.io as a setup: its network of ONNX, its normalisation, its test tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.config import VoxelSize
from em_blocks.errors import CheckpointError, ConfigError, RefusedError
from em_blocks.export.models.bioimageio_setup import Described, described_setup
from em_blocks.export.models.package import sha256
from em_blocks.export.models.rdf import File, Rdf, TensorDescription, read_rdf
from em_blocks.export.models.sample import write_sample
from em_blocks.models.networks.onnx_file import OnnxFile
from em_blocks.models.setup import CONFIG

RDF_NAMES = ("rdf.yaml", "bioimageio.yaml", "model.yaml")
MODEL = "model.onnx"

_CODE = {
    "pytorch_state_dict": "a pickle, which runs code when it is read, and code that builds the network",
    "torchscript": "a program of torch, with weights in a pickle",
    "keras_hdf5": "a program of Keras", "keras_v3": "a program of Keras",
    "tensorflow_saved_model_bundle": "a program of TensorFlow",
    "tensorflow_js": "a program of TensorFlow",
}


def import_bioimageio(folder: Path, made: Path, voxel_size: VoxelSize | None) -> list[str]:
    """Write config.json, model.onnx and the test files of a package into `made`; returns remarks.

    Raises
    ------
    ConfigError
        If it describes what em_blocks does not do, or not in the version that is read.
    CheckpointError
        If a file of it is missing or not the one that is described.
    RefusedError
        If its weights are programs or pickles.
    """
    path = next(folder / name for name in RDF_NAMES if (folder / name).is_file())
    rdf = read_rdf(path)
    if len(rdf.inputs) != 1:
        raise ConfigError(
            f"The model {rdf.name!r} has {len(rdf.inputs)} inputs, but raw is the only one here."
        )
    _copy_weights(folder, rdf, made)
    raw = _tensor(folder, rdf.inputs[0])
    described = described_setup(rdf, raw, OnnxFile(made / MODEL), voxel_size)
    (made / CONFIG).write_text(json.dumps(described.config, indent=2) + "\n")
    write_sample(made, _as_volume(raw, rdf.inputs[0])[0], _outputs(folder, rdf, described))
    for readme in sorted(folder.glob("*.md"))[:1]:
        shutil.copyfile(readme, made / "README.md")
    return described.remarks


def _copy_weights(folder: Path, rdf: Rdf, made: Path) -> None:
    weights = rdf.weights.onnx
    if weights is None:
        kinds = rdf.weights.model_extra or {}
        found = "; ".join(f"{kind}, {_CODE.get(kind, 'unknown here')}" for kind in kinds)
        raise RefusedError(
            f"The model {rdf.name!r} of bioimage.io brings its weights only as {found or 'nothing'}. "
            "em_blocks runs none of it: whoever made the file could do everything that you can. Nothing "
            "was written. Ask for weights of ONNX (`bioimageio add-weights` of the package "
            "bioimageio.core converts them, in an environment that you trust it with)."
        )
    file = _checked(folder, weights)
    if weights.external_data is not None:
        _checked(folder, weights.external_data)
    (made / MODEL).write_bytes(OnnxFile(file).content())


def _checked(folder: Path, described: File) -> Path:
    """Return a file of the package; raise `CheckpointError` unless it is the one that is described."""
    path = folder / described.source
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"The package names the file {described.source!r}, which is not in it. Download it "
            "again, as one .zip file."
        )
    if described.sha256 is not None and sha256(path) != described.sha256:
        raise CheckpointError(
            f"{described.source} of the package has the sha256 {sha256(path)[:12]}..., but "
            f"{described.sha256[:12]}... is described: it is damaged or of another model. Download the "
            "package again."
        )
    return path


def _tensor(folder: Path, tensor: TensorDescription) -> np.ndarray:
    path = _checked(folder, tensor.test_tensor)
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"The test tensor {path.name} cannot be read as an array of numpy ({error}); pickled "
            "objects are never loaded. Download the package again."
        ) from error
    if values.ndim != len(tensor.axes):
        raise CheckpointError(
            f"The test tensor {path.name} has the shape {values.shape}, but {tensor.id!r} is "
            f"described with {len(tensor.axes)} axes. The package contradicts itself; ask its authors."
        )
    return values


def _as_volume(values: np.ndarray, tensor: TensorDescription) -> np.ndarray:
    """Bring a test tensor into the order (c, z, y, x); axes that are missing get the size 1."""
    letters = [axis.letter for axis in tensor.axes]
    values = values[tuple(0 if letter == "n" else slice(None) for letter in letters)]
    letters = [letter for letter in letters if letter != "n"]
    values = values.transpose([letters.index(letter) for letter in "czyx" if letter in letters])
    return values[tuple(slice(None) if letter in letters else np.newaxis for letter in "czyx")]


def _outputs(folder: Path, rdf: Rdf, described: Described) -> Mapping[str, np.ndarray]:
    """Return what every head should give for the test input, (c, z, y, x)."""
    outputs: dict[str, Any] = {}
    for head, tensor in zip(described.heads, rdf.outputs, strict=True):
        values = _as_volume(_tensor(folder, tensor), tensor).astype("float32")
        z, y, x = (slice(c, n - c) for c, n in zip(described.crop, values.shape[1:], strict=True))
        outputs[head] = values[:, z, y, x]
    return outputs

"""A trained network as a package of bioimage.io, spec 0.5, with weights of ONNX.

https://github.com/bioimage-io/spec-bioimage-io
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks import __version__
from em_blocks.export.models.bioimageio_setup import OWN
from em_blocks.export.models.card import card, description
from em_blocks.export.models.folder import ONNX
from em_blocks.export.models.metadata import metadata
from em_blocks.export.models.model import Model, channel_names
from em_blocks.export.models.onnx import INPUT, onnx_config, write_onnx
from em_blocks.export.models.package import new_package, sha256
from em_blocks.export.models.sample import TOLERANCE

FORMAT = "0.5.4"
RDF, README, COVER = "rdf.yaml", "README.md", "cover.png"


def export_bioimageio(model: Model, output: Path) -> None:
    """Write a package: description, graph of ONNX, card and test tensors.

    Parameters
    ----------
    output : Path
        A folder, or a file that ends in .zip, as bioimage.io takes it.

    Raises
    ------
    RefusedError
        If `output` exists.
    """
    import yaml

    with new_package(output) as folder:
        if model.config.network.trainable:
            write_onnx(model, folder / ONNX)
        else:
            shutil.copyfile(model.weights, folder / ONNX)
        np.save(folder / _tensor(INPUT), model.raw[None, None])
        for name, values in model.outputs.items():
            np.save(folder / _tensor(name), values[None])
        (folder / README).write_text(card(model))
        text = yaml.safe_dump(_description(model, folder), sort_keys=False, allow_unicode=True)
        (folder / RDF).write_text(text)


def _name(name: str) -> str:
    """Names there have 5 to 128 letters, digits, spaces and some signs."""
    return f"{re.sub(r'[^A-Za-z0-9 _+()-]', '_', name)[:100]} (em_blocks)"


def _tensor(name: str) -> str:
    return f"test_{name}.npy"


def _description(model: Model, folder: Path) -> dict[str, Any]:
    about = model.about
    return {
        "type": "model", "format_version": FORMAT,
        "name": _name(model.config.name), "description": description(model)[:1024],
        "authors": [author.model_dump(exclude_none=True) for author in about.authors]
        or [{"name": "unknown"}],
        "cite": [cited.model_dump(exclude_none=True) for cited in about.cite]
        or [{"text": "em_blocks", "url": "https://pypi.org/project/em-blocks"}],
        **({"license": about.license} if about.license else {}),
        "tags": list(dict.fromkeys([*about.tags, "electron-microscopy", "3d", "em_blocks"])),
        "documentation": _file(folder, README),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [_input(model, folder)],
        "outputs": [_output(model, folder, name) for name in model.config.heads],
        "weights": {"onnx": {**_file(folder, ONNX), "opset_version": _opset(folder / ONNX)}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [{
                "relative_tolerance": TOLERANCE, "absolute_tolerance": TOLERANCE,
                "mismatched_elements_per_million": 0,
            }]},
            OWN: {"version": __version__, "config": onnx_config(model), "metadata": metadata(model)},
        },
    }


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": sha256(folder / name)}


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def _input(model: Model, folder: Path) -> dict[str, Any]:
    scale = model.config.normalization
    # Readers cast back to the stored type behind the last step, unless that is a cast itself.
    floats = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
    return {
        "id": INPUT, "description": "one channel of grey values",
        "axes": [{"type": "batch"}, _channels([INPUT]), *_space(model, _input_sizes(model))],
        "test_tensor": _file(folder, _tensor(INPUT)),
        "data": {"type": str(model.raw.dtype)},
        "preprocessing": [
            floats,
            {"id": "scale_linear", "kwargs": {"gain": scale.scale, "offset": scale.shift}},
            dict(floats),
        ],
    }


def _output(model: Model, folder: Path, name: str) -> dict[str, Any]:
    head = model.config.heads[name]
    sizes = [
        {"tensor_id": INPUT, "axis_id": axis, "offset": -2 * side}
        for axis, side in zip("zyx", model.context, strict=True)
    ]
    return {
        "id": name, "description": f"{head.kind}, activation {head.activation} is applied",
        "axes": [{"type": "batch"}, _channels(channel_names(name, head)), *_space(model, sizes)],
        "test_tensor": _file(folder, _tensor(name)),
        "data": {"type": "float32"},
    }


def _channels(names: list[str]) -> dict[str, Any]:
    return {"type": "channel", "channel_names": [_identifier(name) for name in names]}


def _identifier(name: str) -> str:
    """Names of channels are identifiers there: shifts keep their sign as m."""
    return name.replace("-", "m").replace(" ", "_")


def _input_sizes(model: Model) -> list[Any]:
    factor = getattr(model.network, "tile_factor", None)
    if factor is None:
        return [int(n) for n in model.raw.shape]
    return [
        {"min": int(step + 2 * side), "step": int(step)}
        for step, side in zip(factor, model.context, strict=True)
    ]


def _space(model: Model, sizes: list[Any]) -> list[dict[str, Any]]:
    return [
        {"type": "space", "id": axis, "size": size, "unit": "nanometer", "scale": float(nm)}
        for axis, size, nm in zip("zyx", sizes, model.config.voxel_size, strict=True)
    ]

"""The config of a setup by a description of bioimage.io."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from em_blocks.config import VoxelSize
from em_blocks.errors import ConfigError
from em_blocks.export.models.rdf import (
    Axis,
    Processing,
    Rdf,
    Reference,
    Steps,
    TensorDescription,
)
from em_blocks.geometry import Triple, triple
from em_blocks.models.networks.onnx_file import OnnxFile

OWN = "em_blocks"
"""Key of `config` in the descriptions that em_blocks writes."""
NM = {"nanometer": 1.0, "micrometer": 1e3, "angstrom": 0.1, "millimeter": 1e6, "picometer": 1e-3}
TARGETS = {2: 512, 3: 96}
"""Voxels per side of the input of a tile, where a network takes several sizes."""


class Described(NamedTuple):
    """A setup: its config, its heads in the order of the outputs, what is cropped, and remarks."""

    config: dict[str, Any]
    heads: list[str]
    crop: Triple
    remarks: list[str]


def described_setup(
    rdf: Rdf, raw: np.ndarray, file: OnnxFile, voxel_size: VoxelSize | None
) -> Described:
    """Make the config of a setup of a description.

    Parameters
    ----------
    raw : array
        The test input, in the axes of the description.
    file : OnnxFile
    voxel_size : (3,) float, optional
        nm (z, y, x), where the description does not say it.

    Raises
    ------
    ConfigError
        If the network has other axes, steps or sizes than em_blocks can give it.
    """
    if OWN in rdf.config:
        return _own(rdf)
    given = rdf.inputs[0]
    axes = _letters(given)
    size = voxel_size or _voxel_size(given)
    normalization, remarks = _normalization(given, raw)
    lost, crop = _sides(rdf)
    names = [_name(output.id) for output in rdf.outputs]
    graph = [value.name for value in file.model.graph.output]
    if len(graph) != len(rdf.outputs):
        raise ConfigError(
            f"The model describes the outputs {', '.join(names)}, but its network gives "
            f"{', '.join(graph)}. The package contradicts itself; ask its authors."
        )
    outputs, heads = {}, {}
    for name, output, there in zip(names, rdf.outputs, graph, strict=True):
        heads[name] = _head(name, output)
        activation = _activation(output)
        outputs[name] = {"name": there, "axes": _letters(output)}
        outputs[name] |= {"activation": activation} if activation else {}
    config = {
        "name": _name(rdf.name), "voxel_size": list(size),
        "network": {
            "kind": "onnx", "file": "model.onnx", "axes": axes, "context": list(lost),
            "crop": list(crop), "outputs": outputs,
        },
        "heads": heads, "normalization": normalization, "intensities": _intensities(raw),
        "tile_shape": list(_tile(given, lost, crop)),
    }
    return Described(config, names, crop, remarks)


def _own(rdf: Rdf) -> Described:
    """Take the config that em_blocks wrote, for the network of the package and no other file."""
    config = rdf.config[OWN].get("config") if isinstance(rdf.config[OWN], dict) else None
    parts = [config.get(key) for key in ("network", "heads")] if isinstance(config, dict) else [None]
    if not all(isinstance(part, dict) for part in parts):
        raise ConfigError(
            f"The description says under config.{OWN} that em_blocks wrote it, but there is no "
            "`config` of a setup with network and heads. It was changed; download the package again."
        )
    kept = {k: parts[0][k] for k in ("context", "crop", "tile_factor") if k in parts[0]}
    network = {"kind": "onnx", "file": "model.onnx", **kept}
    values = {key: value for key, value in config.items() if key != "training"}
    return Described(values | {"network": network}, list(parts[1]), (0, 0, 0), [])


def _letters(tensor: TensorDescription) -> str:
    letters = [axis.letter for axis in tensor.axes]
    if None in letters or not {"y", "x"} <= set(letters):
        found = ", ".join(axis.id or axis.type for axis in tensor.axes)
        raise ConfigError(
            f"The tensor {tensor.id!r} of the model has the axes {found}, but networks here have batch, "
            "channel, z, y and x, of which y and x are needed. The model is for other images."
        )
    return "".join(letter for letter in letters if letter)


def _voxel_size(tensor: TensorDescription) -> VoxelSize:
    sizes = []
    for letter in "zyx":
        axis = tensor.axis(letter)
        if axis is None or axis.unit not in NM:
            raise ConfigError(
                f"The model does not say on which voxel size it was trained: axis {letter!r} has "
                f"{'no unit' if axis else 'no place in its input, which is a section'}. A network sees "
                "everything in the wrong size otherwise: give --voxel-size Z,Y,X in nm."
            )
        sizes.append(axis.scale * NM[axis.unit])
    z, y, x = sizes
    return z, y, x


# -- normalisation ------------------------------------------------------------------------------


def _normalization(tensor: TensorDescription, raw: np.ndarray) -> tuple[dict[str, float], list[str]]:
    """Return scale and shift of all steps before the network, and remarks."""
    scale, shift, remarks = 1.0, 0.0, []
    for step in tensor.preprocessing:
        values = raw.astype("float64") * scale + shift
        gain, offset = _affine(step, values)
        scale, shift = scale * gain, shift * gain + offset
        if step.id in ("zero_mean_unit_variance", "scale_range", "scale_mean_variance"):
            remarks.append(
                f"the model scales every image by its own {step.id}; the setup has the scale of "
                "the test input. Set 'normalization' of the prediction to percentiles if your data "
                "are of other contrast."
            )
    return {"scale": scale, "shift": shift}, remarks


def _affine(step: Processing, values: np.ndarray) -> tuple[float, float]:
    """Return gain and offset of a step."""
    kwargs, eps = step.kwargs, float(step.kwargs.get("eps", 1e-6))
    if step.id == "ensure_dtype":
        return 1.0, 0.0
    if step.id == "scale_linear":
        return _single(kwargs.get("gain", 1.0)), _single(kwargs.get("offset", 0.0))
    if step.id == "fixed_zero_mean_unit_variance":
        mean, std = _single(kwargs["mean"]), _single(kwargs["std"])
        return 1 / std, -mean / std
    if step.id == "zero_mean_unit_variance":
        std = float(values.std()) + eps
        return 1 / std, -float(values.mean()) / std
    if step.id == "scale_range":
        percent = (float(kwargs.get("min_percentile", 0)), float(kwargs.get("max_percentile", 100)))
        low, high = np.percentile(values, percent)
        return 1 / (high - low + eps), -low / (high - low + eps)
    raise ConfigError(
        f"The model wants the step {step.id!r} before its network, which em_blocks does not do: it "
        "scales and shifts intensities, nothing else. Predictions without it would be wrong."
    )


def _single(value: Any) -> float:
    values = np.atleast_1d(np.asarray(value, "float64"))
    if len(values) != 1:
        raise ConfigError(
            f"The model scales channels differently ({list(values)}), but raw is one channel."
        )
    return float(values[0])


def _intensities(raw: np.ndarray) -> list[float]:
    if raw.dtype == np.uint8:
        return [0.0, 255.0]
    return [float(raw.min()), float(raw.max())]


# -- outputs ------------------------------------------------------------------------------------


def _head(name: str, output: TensorDescription) -> dict[str, Any]:
    """Return the config of a head of classes with the names of the channels."""
    axis = output.axis("c")
    named = axis.channel_names if axis is not None else None
    names = named if isinstance(named, list) else [name]
    return {"kind": "classes", "classes": [_name(each) for each in names]}


def _activation(output: TensorDescription) -> str | None:
    """Return what is applied behind the network."""
    steps = [step.id for step in output.postprocessing if step.id != "ensure_dtype"]
    if len(steps) > 1 or (steps and steps[0] not in ("sigmoid", "softmax")):
        raise ConfigError(
            f"The model wants the steps {', '.join(steps)} behind the output {output.id!r}, but "
            "em_blocks stores what a network gives, after a sigmoid or softmax at most. Such steps "
            "are tasks of their own here (segment, clean); use a model without them."
        )
    return steps[0] if steps else None


def _sides(rdf: Rdf) -> tuple[Triple, Triple]:
    """Return the voxels per side that all outputs lack, and those of their halos (z, y, x)."""
    found = {tuple(_side(rdf.inputs[0], output, letter) for letter in "zyx") for output in rdf.outputs}
    if len(found) > 1:
        raise ConfigError(
            f"The outputs of the model lack {sorted(found)} voxels per side and halo (z, y, x); "
            "em_blocks needs the same for all."
        )
    sides = found.pop()
    return triple(lost for lost, _ in sides), triple(halo for _, halo in sides)


def _side(given: TensorDescription, output: TensorDescription, letter: str) -> tuple[int, int]:
    before, after = given.axis(letter), output.axis(letter)
    if before is None or after is None:
        return 0, 0
    lost = _lost(before, after)
    if before.scale != after.scale or lost is None or lost < 0 or lost % 2:
        raise ConfigError(
            f"The output {output.id!r} has other sizes along {letter} than the input less as many "
            "voxels on both sides. em_blocks cannot use networks that change the resolution."
        )
    return lost // 2, after.halo


def _lost(before: Axis, after: Axis) -> int | None:
    if isinstance(after.size, Reference):
        return -after.size.offset
    if isinstance(after.size, int) and isinstance(before.size, int):
        return before.size - after.size
    return None


def _tile(given: TensorDescription, lost: Triple, crop: Triple) -> Triple:
    """Choose an output tile whose input the network takes."""
    dimensions = 3 if given.axis("z") is not None else 2
    sides = zip("zyx", lost, crop, strict=True)
    return triple(
        1 if (axis := given.axis(letter)) is None
        else _input_size(axis, TARGETS[dimensions]) - 2 * (context + cut)
        for letter, context, cut in sides
    )


def _input_size(axis: Axis, target: int) -> int:
    if isinstance(axis.size, int):
        return axis.size
    if isinstance(axis.size, Steps):
        least, step = axis.size.min, axis.size.step
        return least + max(0, -(-(target - least) // step)) * step if step else least
    raise ConfigError(
        f"The sizes that the model takes along {axis.id!r} depend on another input, which "
        "em_blocks does not have."
    )


def _name(text: str) -> str:
    """Make a name that begins with a letter, of letters, digits and underscores."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")
    return name if name[:1].isalpha() else f"n{name}"


"""What is read of a description of bioimage.io (rdf.yaml), spec 0.5; other keys are left alone.

https://github.com/bioimage-io/spec-bioimage-io
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from em_blocks.errors import ConfigError

MOST_BYTES = 10_000_000  # of rdf.yaml


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


def _plain_name(source: str) -> str:
    if "://" in source or source.startswith(("/", "\\")) or ".." in source.replace("\\", "/").split("/"):
        raise ValueError(
            f"{source!r} is not a file of the package; download the model as one .zip file"
        )
    return source


Source = Annotated[str, AfterValidator(_plain_name)]


class File(_Part):
    """A file of the package."""

    source: Source
    sha256: str | None = None


class Reference(_Part):
    """A size that follows another axis: its size, scaled, plus an offset."""

    tensor_id: str
    axis_id: str
    offset: int = 0


class Steps(_Part):
    """Sizes min, min + step, ..."""

    min: int
    step: int


class Axis(_Part):
    """An axis of a tensor."""

    type: Literal["batch", "channel", "space", "time", "index"]
    id: str | None = None
    size: int | Steps | Reference | dict[str, Any] | None = None
    channel_names: list[str] | str | None = None
    unit: str | None = None
    scale: float = 1.0
    halo: int = 0

    @property
    def letter(self) -> str | None:
        """Return which of n, c, z, y and x it is; None for others."""
        if self.type == "batch":
            return "n"
        if self.type == "channel":
            return "c"
        return self.id if self.type == "space" and self.id in ("z", "y", "x") else None


class Processing(_Part):
    """A step before or behind the network."""

    id: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class TensorDescription(_Part):
    """An input or output of the network."""

    id: str
    axes: list[Axis]
    test_tensor: File
    preprocessing: list[Processing] = Field(default_factory=list)
    postprocessing: list[Processing] = Field(default_factory=list)

    def axis(self, letter: str) -> Axis | None:
        """Return an axis by its letter."""
        return next((axis for axis in self.axes if axis.letter == letter), None)


class OnnxWeights(File):
    """Weights of ONNX."""

    external_data: File | None = None


class Weights(BaseModel):
    """Weights of ONNX, and whatever else there is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    onnx: OnnxWeights | None = None


class Rdf(_Part):
    """A model of bioimage.io."""

    type: Literal["model"]
    format_version: str
    name: str
    inputs: list[TensorDescription]
    outputs: list[TensorDescription]
    weights: Weights
    config: dict[str, Any] = Field(default_factory=dict)


def read_rdf(path: Path) -> Rdf:
    """Read a description.

    Raises
    ------
    ConfigError
        If it is not YAML, no model, or of another version of the format.
    """
    import yaml

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"The description {path} cannot be read as YAML: {error}. Download the package again."
        ) from error
    version = str(values.get("format_version")) if isinstance(values, dict) else None
    if version is None or not version.startswith("0.5."):
        raise ConfigError(
            f"The description {path} is of the format version {version}, but 0.5 is needed: older "
            "ones do not say which axis is which. `bioimageio update-format` of the package "
            "bioimageio.core makes one of the newest version."
        )
    try:
        return Rdf.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"The description {path} cannot be used: {where}: {first['msg']}. `bioimageio "
            "validate-format` says what is wrong with a package."
        ) from error

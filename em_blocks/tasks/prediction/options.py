"""Parts of a prediction's config."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
)

from em_blocks.config import Shape3, StrictModel, is_url, resolve_path
from em_blocks.volumes.formats.storage import Format


def _resolve_checkpoint(value: Any, info: ValidationInfo) -> Any:
    """A path becomes absolute like every path of a config; a word or an iteration stays."""
    if not isinstance(value, str) or value in CHECKPOINT_WORDS or value.isdecimal():
        return value
    path = resolve_path(value, (info.context or {}).get("folder"))
    if is_url(path):
        raise ValueError(
            "weights are read from a file of this machine: copy it here, then give its path"
        )
    return path


def _resolve_training(value: Any, info: ValidationInfo) -> Any:
    """A folder becomes absolute like every path of a config; a number stays."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    return resolve_path(value, (info.context or {}).get("folder"))


_NUMBER = re.compile(r"\d+(:\w+)?")

CHECKPOINT_WORDS = ("best", "latest")

Checkpoint = Annotated[str | PositiveInt, BeforeValidator(_resolve_checkpoint)]
"""Which weights: a word of `CHECKPOINT_WORDS`, an iteration, or a file (``./best`` if it has the
name of a word), absolute once the model is made."""


class Lineage(StrictModel):
    """Weights of a training, as they were found."""

    number: int | None = Field(description="Of the training in the run database.")
    uid: str | None = Field(description="Identity of the training.")
    setup: str = Field(description="Name of the setup.")
    iteration: int = Field(description="Of the weights.")
    sha256: str = Field(description="Of the weights.")


Training = Annotated[PositiveInt | str | Lineage, BeforeValidator(_resolve_training)]
"""A training by its number (3, "3:2500") or folder, until its setup and weights are found."""


class HeadOutput(StrictModel):
    """Where and how one head of the network is stored."""

    dataset: str | None = Field(None, description="Name in the output; default: the head's name.")
    dtype: Literal["uint8", "int8", "float16", "float32"] | None = Field(
        None, description="Default: uint8, for direction vectors int8."
    )
    scale: PositiveFloat | None = Field(
        None,
        description="Stored = output * scale. Default: 255 for uint8, 127 for int8; 0.25 for int8 of "
        "direction vectors, which is 4 nm and reaches to 508 nm.",
    )
    format: Format = "zarr"
    chunk_shape: Shape3 | None = Field(
        None,
        description="Voxels (z, y, x). Default: the divisor of the block next to 64, from 32 to 128.",
    )

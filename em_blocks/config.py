"""Configuration models: strict, immutable, read from JSON files.

Relative paths in a file mean "relative to the folder of that file", so the
same command does the same from every working directory. Environment variables
in paths are expanded; an undefined one is an error, not an empty string, unless
a default is given: ``${NAME:-default}`` as in a shell.
"""

from __future__ import annotations

import json
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
)

from em_blocks.errors import ConfigError

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
_WITH_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


def is_url(path: str) -> bool:
    """Whether `path` names an object store (``s3://`` ...) and not a file."""
    return bool(_URL.match(path))


def resolve_path(path: str, folder: Path | None) -> str:
    """Expand variables and ``~``; make a local path absolute, from `folder`."""
    path = _WITH_DEFAULT.sub(lambda found: os.environ.get(found[1]) or found[2], path)
    path = os.path.expanduser(os.path.expandvars(path))
    if undefined := _VARIABLE.search(path):
        raise ValueError(
            f"the environment variable {undefined.group(0)} in {path!r} is not set; "
            "export it, or write the path out"
        )
    if is_url(path):
        return path.rstrip("/")
    return os.path.normpath(os.path.join(folder or Path.cwd(), path))


def _resolve(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, (str, Path)):
        return value
    return resolve_path(str(value), (info.context or {}).get("folder"))


LocalPath = Annotated[Path, BeforeValidator(_resolve)]
"""A file or folder of this machine, absolute once the model is made."""

StorePath = Annotated[str, BeforeValidator(_resolve)]
"""A local path or a URL of an object store."""

Shape3 = tuple[PositiveInt, PositiveInt, PositiveInt]
"""Voxels (z, y, x)."""

VoxelSize = tuple[
    Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
]
"""nm per voxel (z, y, x)."""

Position3 = tuple[float, float, float]
"""World position, nm (z, y, x)."""


class StrictModel(BaseModel):
    """Unknown keys are errors, instances never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ignored_types=(cached_property,)
    )

    @classmethod
    def from_dict(cls, values: dict, *, folder: Path | None = None, source: str = "config") -> Self:
        """Validate `values`; relative paths are taken from `folder`.

        Raises
        ------
        ConfigError
            Naming every wrong field, what came and what is needed.
        """
        try:
            return cls.model_validate(values, context={"folder": folder})
        except ValidationError as error:
            raise ConfigError(_paragraph(error, source)) from error

    @classmethod
    def from_file(cls, path: Path | str, overrides: tuple[str, ...] = ()) -> Self:
        """Read a JSON file; `overrides` are ``key.path=value`` strings.

        Raises
        ------
        ConfigError
            If the file is missing, is not JSON, or does not fit the model.
        """
        path = Path(path)
        values = read_json(path)
        for override in overrides:
            _apply_override(values, override)
        return cls.from_dict(values, folder=path.resolve().parent, source=str(path))


def read_json(path: Path) -> dict:
    """Read a JSON object from `path`; raises `ConfigError`."""
    try:
        values = json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(
            f"The config {path} cannot be read ({error.strerror}). A JSON file is needed here; "
            "the folder configs/ of em_blocks holds examples to start from."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"The config {path} is not valid JSON: {error}. Comments and trailing commas are not "
            "allowed; mend the file at the given line."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"The config {path} holds a {type(values).__name__}, but a JSON object "
            '({"key": value, ...}) is needed.'
        )
    return values


def _apply_override(values: dict, override: str) -> None:
    """Set ``a.b.c=value`` in nested dicts; the value is JSON, else a string."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not of the form key.path=value.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a group of keys.")
    values[last] = value


def _paragraph(error: ValidationError, source: str) -> str:
    """One paragraph that names every wrong field."""
    problems = "; ".join(_problem(item) for item in error.errors())
    return (
        f"{source} cannot be used: {problems}. Nothing was started or written; correct the "
        "named fields (docs/configs.md and configs/*.schema.json list them all)."
    )


def _problem(item: dict) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "the whole"
    if item["type"] == "extra_forbidden":
        return f"the key {field!r} is unknown"
    if item["type"] == "missing":
        return f"the key {field!r} is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{field!r}: got {_short(item['input'])}, {message[0].lower() + message[1:]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

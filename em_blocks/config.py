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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    Tag,
    ValidationError,
    ValidationInfo,
)

from em_blocks.errors import ConfigError, EmBlocksError

_URL = re.compile(r"^[a-z][a-z0-9+.-]*://")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_FILE_URL = re.compile(r"^file://(?:localhost)?(?=/)")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")
_WITH_DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


def is_url(path: str) -> bool:
    """Tell whether `path` names an object store (``s3://`` ...) and not a file."""
    return bool(_URL.match(path))


def without_file_scheme(path: str) -> str:
    """A path without ``file://``; of any other URL, the scheme in lower case."""
    path = _SCHEME.sub(lambda found: found[0].lower(), path)
    return unquote(_FILE_URL.sub("", path)) if _FILE_URL.match(path) else path


def resolve_path(path: str, folder: Path | None) -> str:
    """Expand variables and ``~``; make a local path (or ``file://``) absolute, from `folder`."""
    path = _WITH_DEFAULT.sub(lambda found: os.environ.get(found[1]) or found[2], path)
    path = os.path.expanduser(os.path.expandvars(path))
    if undefined := _VARIABLE.search(path):
        raise ValueError(
            f"the environment variable {undefined.group(0)} in {path!r} is not set; "
            "export it, or write the path out"
        )
    path = without_file_scheme(path)
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
    """Refuse unknown keys; instances never change.

    Raises
    ------
    ConfigError
        Naming every wrong field, what came and what is needed.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, ignored_types=(cached_property,)
    )

    def __init__(self, **values: Any):
        with _named_fields(type(self).__name__):
            super().__init__(**values)

    # Not a step of validation: what is read from a file knows its folder, which this does not.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_dict(cls, values: dict, *, folder: Path | None = None, source: str = "config") -> Self:
        """Validate `values`; relative paths are taken from `folder`.

        Raises
        ------
        ConfigError
            Naming every wrong field, what came and what is needed.
        """
        with _named_fields(source):
            return cls.model_validate(values, context={"folder": folder})

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
            apply_override(values, override)
        return cls.from_dict(values, folder=path.resolve().parent, source=str(path))


def _checked_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(axes)) < len(axes) or not set("zyx") <= set(axes):
        raise ValueError(
            f"the axes {list(axes)} are not those of a volume: z, y and x are needed, each once; t "
            "and c may be there"
        )
    return axes


VolumeAxes = Annotated[tuple[Literal["t", "c", "z", "y", "x"], ...], AfterValidator(_checked_axes)]
"""Axes of a stored array, the slowest first."""


class VolumeInput(StrictModel):
    """A volume that is read, with what its own metadata do not say, or say wrongly.

    ``str()`` is its path.
    """

    path: StorePath = Field(description="Path or URL of the array.")
    voxel_size: VoxelSize | None = Field(None, description="nm (z, y, x).")
    offset: Position3 | None = Field(
        None, description="World position of the first corner, nm (z, y, x)."
    )
    axes: VolumeAxes | None = Field(
        None,
        description="Axes as stored, the slowest first, as numpy shows the array: "
        '["z", "y", "x"] is the usual order in every format, N5 and precomputed included.',
    )

    def __str__(self) -> str:
        return self.path


class RoiConfig(StrictModel):
    """A region of the world."""

    offset: Position3 = Field(description="First corner, nm (z, y, x).")
    shape: VoxelSize = Field(description="Size, nm (z, y, x).")


def _plain(value: str | VolumeInput) -> str | VolumeInput:
    # An input that adds nothing is its path: both spellings have one fingerprint.
    if isinstance(value, VolumeInput) and value == VolumeInput.model_construct(path=value.path):
        return value.path
    return value


def _spelling(value: Any) -> str:
    return "<volume>" if isinstance(value, (dict, VolumeInput)) else "<path>"


VolumeRef = Annotated[
    Annotated[StorePath, Tag("<path>")] | Annotated[VolumeInput, Tag("<volume>")],
    Discriminator(_spelling),
    AfterValidator(_plain),
]
"""A volume that is read: its path, or ``{"path", "voxel_size", "offset", "axes"}``."""


def path_of(volume: str | VolumeInput) -> str:
    """Return the path of a volume, without what a config says of it."""
    return str(volume)


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
            "allowed; correct the file at the given line."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"The config {path} holds a {type(values).__name__}, but a JSON object "
            '({"key": value, ...}) is needed.'
        )
    return values


def apply_override(values: dict, override: str) -> None:
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


@contextmanager
def _named_fields(source: str) -> Iterator[None]:
    """Turn wrong fields into a paragraph; errors that are one already stay as they are."""
    try:
        yield
    except ValidationError as error:
        own = [item.get("ctx", {}).get("error") for item in error.errors()]
        for cause in own:
            if isinstance(cause, EmBlocksError):
                raise cause from None
        raise ConfigError(_paragraph(error, source)) from error


def _paragraph(error: ValidationError, source: str) -> str:
    """One paragraph that names every wrong field."""
    problems = "; ".join(_problem(item) for item in error.errors())
    return (
        f"{source} cannot be used: {problems}. Nothing was started or written; correct the "
        "named fields (docs/configs.md and configs/*.schema.json list them all)."
    )


def _problem(item: Mapping[str, Any]) -> str:
    # In pointed brackets: which spelling of a union it is.
    parts = [str(part) for part in item["loc"] if not str(part).startswith("<")]
    field = ".".join(parts) or "the whole"
    if item["type"] == "extra_forbidden":
        return f"the key {field!r} is unknown"
    if item["type"] == "missing":
        return f"the key {field!r} is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{field!r}: got {_short(item['input'])}, {message[0].lower() + message[1:]}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

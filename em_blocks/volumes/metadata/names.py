"""Names of axes: of zarr v3, xarray, funlib, N5, HDF5 and ilastik."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from em_blocks.volumes.metadata.claims import SPACE, Axes, Stored

_CHANNEL = ("c", "ch", "channel", "channels", "band", "bands")
_TIME = ("t", "time", "times")


def named_axes(stored: Stored) -> Iterator[tuple[str, Axes]]:
    """Yield every list of names of axes that is stored: its dialect, and the axes as numpy shows them.

    Names that say nothing of z, y and x are left out, as are lists of another length than the
    array has axes.

    Raises
    ------
    ValueError
        If a list is none of names.
    """
    found = stored.attributes
    for dialect, values in [
        ("dimension_names", stored.names),
        ("the attribute '_ARRAY_DIMENSIONS'", found.get("_ARRAY_DIMENSIONS")),
        ("the attribute 'dimension_names'", found.get("dimension_names")),
        ("the attribute 'axis_names'", found.get("axis_names")),
        ("the attribute 'axistags'", _axistags(found.get("axistags"))),
        # N5 writers list axes as they list dimensions: x first.
        ("the attribute 'axes'", _listed(found.get("axes"), stored.n5)),
    ]:
        axes = _understood(values, len(stored.shape))
        if axes is not None:
            yield dialect, axes


def own_axes(stored: Stored) -> Axes | None:
    """Return the axes that ``axis_names`` lists, to which values beside it belong."""
    return _understood(stored.attributes.get("axis_names"), len(stored.shape))


def normal(name: object) -> str:
    """Return the name of an axis as used here: t, c, z, y, x, or unchanged."""
    text = name.strip().lower() if isinstance(name, str) else ""
    if text.endswith("^") or text in _CHANNEL:  # ^: funlib's mark of a channel axis
        return "c"
    return "t" if text in _TIME else text


def are_axes(axes: Sequence[str]) -> bool:
    """Return whether these are the axes of a volume, each once: z, y, x, perhaps t and c."""
    return set(SPACE) <= set(axes) <= {"t", "c", *SPACE} and len(set(axes)) == len(axes)


def _listed(values: object, reverse: bool) -> object:
    if isinstance(values, str):
        values = list(values)
    if isinstance(values, list) and all(isinstance(v, dict) for v in values):
        values = [v.get("name") for v in values]
    return values[::-1] if reverse and isinstance(values, list) else values


def _axistags(text: Any) -> object:
    try:
        return [axis["key"] for axis in json.loads(text)["axes"]]
    except (TypeError, ValueError, KeyError):
        return None


def _understood(values: object, rank: int) -> Axes | None:
    if isinstance(values, str):
        values = list(values)
    if not isinstance(values, (list, tuple)) or len(values) != rank:
        return None
    axes = [normal(v) for v in values]
    if not set(axes) & set(SPACE):
        return _only_channels(axes)
    unknown = [n for n, axis in enumerate(axes) if axis not in ("t", "c", *SPACE)]
    if not unknown:
        return tuple(axes)
    if len(unknown) > 1 or "c" in axes or not set(SPACE) <= set(axes):
        return None
    # A name of their own for what the channels are: "affinity", "offset", "feature".
    axes[unknown[0]] = "c"
    return tuple(axes)


def _only_channels(axes: list[str]) -> Axes | None:
    """Name the other axes z, y, x where only the channels have a name."""
    others = [n for n, axis in enumerate(axes) if axis not in ("c", "t")]
    if len(others) != 3 or len(others) == len(axes):
        return None
    for n, axis in zip(others, SPACE, strict=True):
        axes[n] = axis
    return tuple(axes)

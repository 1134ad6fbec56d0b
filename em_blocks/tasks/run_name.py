"""Names of runs that are made in Python without one."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_CONTAINERS = (".zarr", ".n5", ".precomputed")
_LONGEST = 100


def run_name(output: object, kind: str) -> str:
    """Return a name for the run that writes `output`: its container and array, else the kind of task.

    Examples
    --------
    ``data/brain.zarr/raw`` gives "brain_raw", ``data/affinities.zarr`` "affinities".
    """
    parts = PurePosixPath(str(output or kind)).parts
    begin = next((i for i, part in enumerate(parts) if part.endswith(_CONTAINERS)), len(parts) - 1)
    names = [part.removesuffix(PurePosixPath(part).suffix) or part for part in parts[begin:]]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(names)).lstrip("_.-")
    return name[:_LONGEST] or kind

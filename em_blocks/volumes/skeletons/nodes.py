"""Points of skeletons with the ids of their neurons, from SWC files or lists of nodes in JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.kernels.synapses.table import LARGEST_ID
from em_blocks.volumes.skeletons.swc_files import swc_files
from em_blocks.volumes.synapse_files.checks import columns_of, finite, malformed, whole


class SkeletonNodes(NamedTuple):
    """Nodes as columns."""

    positions: np.ndarray  # (n, 3) float64, nm (z, y, x)
    skeleton: np.ndarray  # (n,) int64


def read_nodes(path: Path, *, unit_nm: float | Sequence[float] = 1.0) -> SkeletonNodes:
    """Return the nodes of skeletons.

    Parameters
    ----------
    path : Path
        An SWC file or a folder of them, named by the id of the neuron (``23829.swc``); or a JSON list
        of nodes as published with Synful's evaluation: ``id``, ``position`` (nm, z, y, x),
        ``neuron_id`` and ``parent_id``.
    unit_nm : float or (3,) float
        nm per unit of the positions in SWC files, for all axes or (z, y, x).

    Raises
    ------
    ConfigError, SynapseFileError
        If there are none, or one cannot be understood; a row of JSON is named.
    """
    return _of_json(path) if path.suffix == ".json" else _of_swc(path, unit_nm)


def digest_of(path: Path) -> str:
    """Return SHA-256 of all that `read_nodes` reads; part of fingerprints."""
    files = swc_files(path)
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
    except OSError as error:
        raise ConfigError(f"The skeletons {path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _of_swc(path: Path, unit_nm: float | Sequence[float]) -> SkeletonNodes:
    # Here, because networkx takes a fifth of a second that no other mapping need wait for.
    from em_blocks.kernels.skeletons.run_length import as_columns
    from em_blocks.volumes.skeletons.networks import read_skeletons

    graphs = read_skeletons(path, unit_nm=unit_nm)
    columns, ids = as_columns(list(graphs.values())), [_neuron(name, path) for name in graphs]
    return SkeletonNodes(columns.positions, np.array(ids, np.int64)[columns.skeleton])


def _neuron(name: str, path: Path) -> int:
    if name.isdecimal() and int(name) <= LARGEST_ID:
        return int(name)
    raise ConfigError(
        f"The skeleton {name}.swc in {path} is not named by the id of its neuron (a whole number below "
        "2^63), which is what synapses store. Rename the files, for example to 23829.swc."
    )


def _of_json(path: Path) -> SkeletonNodes:
    try:
        rows = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as a JSON list of nodes: {error}. Each is an object with id, "
            "position [z, y, x] in nm, neuron_id and parent_id."
        ) from error
    if not isinstance(rows, list) or not rows:
        raise ConfigError(
            f"{path} holds no list of nodes; each is an object with id, position [z, y, x] in nm, "
            "neuron_id and parent_id."
        )
    wanted = {"positions": ("position", _position), "skeleton": ("neuron_id", whole)}
    found = columns_of(path, rows, wanted)
    skeleton = np.array(found["skeleton"], np.int64)
    if (skeleton < 0).any():
        row = int(np.flatnonzero(skeleton < 0)[0])
        raise malformed(path, row, f"neuron_id {skeleton[row]} is negative")
    return SkeletonNodes(np.array(found["positions"], np.float64), skeleton)


def _position(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("is not a position [z, y, x]")
    return [finite(number) for number in value]

"""NumPy archives of partners, as Synful's extraction writes one per block.

``ids`` (n,), ``positions`` (n, 2, 3) in nm (z, y, x), presynaptic site first, and ``scores`` (n,);
beside them the other columns of `Synapses` by their name. Archives with other arrays, or without
ours, are read too. Pickled objects are refused: loading one runs whatever it says.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.synapse_files.checks import table_of

_KINDS = {"ids": "ui", "positions": "uif", "scores": "uif", "cleft_score": "uif"}
_OWN = [name for name in Synapses.columns() if name not in ("id", "pre", "post", "score")]


def read(path: Path) -> Synapses:
    """Read partners of a file; raises `SynapseFileError`."""
    arrays = _load(path)
    for name in ("ids", "positions"):
        if name not in arrays:
            raise SynapseFileError(
                f"{path} has no array {name!r}, only {', '.join(sorted(arrays)) or 'none'}; an archive "
                "of partners has 'ids' and 'positions'."
            )
    for name, values in arrays.items():
        _check(path, name, values)
    pre, post = arrays["positions"].astype(np.float64).transpose(1, 0, 2)
    columns = {"id": arrays["ids"], "pre": pre, "post": post}
    if "scores" in arrays:
        columns["score"] = arrays["scores"].astype(np.float64)
    columns |= {name: arrays[name] for name in _OWN if name in arrays}
    return table_of(path, columns)


def write(path: Path, synapses: Synapses) -> None:
    own = {name: getattr(synapses, name) for name in _OWN}
    positions = np.stack([synapses.pre, synapses.post], axis=1)
    with open(path, "wb") as file:
        np.savez(
            file, ids=synapses.id.astype(np.uint64), positions=positions, scores=synapses.score, **own
        )


def _load(path: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays that make up a table."""
    try:
        # Opened here: of a damaged archive numpy leaves the file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in [*_KINDS, *_OWN]}
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise SynapseFileError(
            f"{path} is no archive of NumPy arrays of numbers, or is damaged: {error}."
        ) from error


def _check(path: Path, name: str, values: np.ndarray) -> None:
    tail, wanted = (), "(n,)"
    if name == "positions":
        tail, wanted = (2, 3), "(n, 2, 3): n times presynaptic and postsynaptic site"
    if values.ndim != 1 + len(tail) or values.shape[1:] != tail:
        raise SynapseFileError(
            f"The array {name} of {path} has the shape {values.shape}, but {wanted} is needed."
        )
    kinds = _KINDS.get(name, "ui")
    if values.dtype.kind not in kinds:
        raise SynapseFileError(
            f"The array {name} of {path} holds {values.dtype}, but "
            f"{'numbers' if 'f' in kinds else 'whole numbers'} are needed."
        )

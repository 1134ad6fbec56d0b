"""Files of skeletons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import networkx as nx

from em_blocks.errors import ConfigError
from em_blocks.kernels.skeletons.swc import parse_swc
from em_blocks.volumes.skeletons.swc_files import swc_files


def read_skeletons(path: Path, *, unit_nm: float | Sequence[float]) -> dict[str, nx.Graph]:
    """Return the neuron of an SWC file, or those of all SWC files of a folder, by file name.

    Parameters
    ----------
    unit_nm : float or (3,) float
        nm per unit of the positions in the files, for all axes or (z, y, x).

    Raises
    ------
    ConfigError
        If there are none, or one cannot be understood.
    """
    files = swc_files(path)
    if not files:
        raise ConfigError(f"The folder {path} holds no skeletons (*.swc), one neuron per file.")
    return {file.stem: _read_swc(file, unit_nm) for file in files}


def _read_swc(file: Path, unit_nm: float | Sequence[float]) -> nx.Graph:
    try:
        # Only comments hold more than ASCII, in whatever encoding.
        return parse_swc(file.read_text("utf-8-sig", errors="replace"), unit_nm=unit_nm)
    except OSError as error:
        raise ConfigError(f"The skeleton {file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(
            f"{file} is no skeleton in SWC format: {error}. Correct or remove the file."
        ) from error

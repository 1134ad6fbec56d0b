"""Files of skeletons."""

from __future__ import annotations

from pathlib import Path

import networkx as nx

from em_blocks.errors import ConfigError
from em_blocks.kernels.skeletons import parse_swc


def read_skeletons(path: Path, *, unit_nm: float) -> dict[str, nx.Graph]:
    """The neuron of an SWC file, or those of all SWC files of a folder, by file name.

    Parameters
    ----------
    unit_nm : float
        nm per unit of the positions in the files.

    Raises
    ------
    ConfigError
        If there are none, or one cannot be understood.
    """
    files = sorted(path.glob("*.swc")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"The folder {path} holds no skeletons (*.swc), one neuron per file.")
    return {file.stem: _read_swc(file, unit_nm) for file in files}


def _read_swc(file: Path, unit_nm: float) -> nx.Graph:
    try:
        return parse_swc(file.read_text(), unit_nm=unit_nm)
    except OSError as error:
        raise ConfigError(f"The skeleton {file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(
            f"{file} is no skeleton in SWC format: {error}. Correct or remove the file."
        ) from error

"""Everything that is checked before the first worker starts, or anything is written."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.db.connect import expand_uri
from em_blocks.db.server import mongod_binary
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid
from em_blocks.runtime.launch import check_launcher
from em_blocks.tasks.base import BlockwiseTask, fingerprint
from em_blocks.tasks.masks import masked_blocks


@dataclass(frozen=True)
class Checked:
    """A task whose inputs were opened and found usable.

    Attributes
    ----------
    grid : BlockGrid
    identity : dict
        What decides the result.
    masked : (z, y, x) bool array
        Blocks of the grid that the mask leaves out.
    """

    grid: BlockGrid
    identity: dict
    masked: np.ndarray

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.identity)

    def n_voxels(self, blocks: np.ndarray) -> int:
        """Voxels of the blocks marked in a bool array (z, y, x) over the grid."""
        sizes = [
            np.minimum(np.arange(1, n + 1) * b, v) - np.arange(n) * b
            for n, b, v in zip(
                self.grid.shape, self.grid.block_shape, self.grid.volume_shape, strict=True
            )
        ]
        return int(np.einsum("zyx,z,y,x->", blocks.astype(np.int64), *sizes))


def check_task(task: BlockwiseTask) -> Checked:
    """Open all inputs and check that every block can be done.

    Raises
    ------
    EmBlocksError
        The first problem, as one paragraph. Nothing was written.
    """
    grid = task.grid()
    task.check()
    task.check_alignment()
    for output in task.output_specs():
        output.check(grid)
    check_launcher(task)
    if task.db_host is None:
        mongod_binary()
    else:
        expand_uri(task.db_host)
    check_writable(task.home)
    masked = masked_blocks(task.mask, grid) if task.mask else np.zeros(grid.shape, bool)
    checked = Checked(grid, task.identity(), masked)
    if not any(output.exists() for output in task.output_specs()):
        check_space(task, checked.n_voxels(~masked))
    return checked


def check_writable(folder: Path) -> None:
    """Raise `ConfigError` unless `folder`, which need not exist, can be written."""
    existing = _existing(folder)
    try:
        # An unnamed file: permissions, read-only mounts and quotas answer, nothing stays.
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {existing} gives {error.strerror!r}. Results, logs and the "
            "database go there; choose another output, or change the permissions."
        ) from error


def check_space(task: BlockwiseTask, n_voxels: int) -> None:
    """Raise `ConfigError` if the disk cannot hold the outputs of `n_voxels` voxels."""
    for output in task.output_specs():
        if output.folder is None:
            continue
        folder = Path(output.folder)
        check_writable(folder.parent)
        needed, free = output.nbytes(n_voxels), shutil.disk_usage(_existing(folder)).free
        if needed > free:
            raise ConfigError(
                f"The disk of {output.path} is too small: the blocks that are left need up to "
                f"{needed / 1e9:.3g} GB for the output {output.name!r}, and {free / 1e9:.3g} GB are "
                "free. The run would stop in the middle; free some space, choose another disk, or a "
                "smaller dtype or ROI."
            )


def _existing(path: Path) -> Path:
    """The deepest existing parent of `path`."""
    while not path.exists():
        path = path.parent
    return path

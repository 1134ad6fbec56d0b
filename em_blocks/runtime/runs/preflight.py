"""Everything that is checked before the first worker starts, or anything is written."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from em_blocks.config import path_of
from em_blocks.db.connect import database_home, expand_uri
from em_blocks.db.server import mongod_binary
from em_blocks.errors import ConfigError, IncompleteInputError
from em_blocks.geometry import BlockGrid
from em_blocks.runtime.launchers.base import check_launcher
from em_blocks.runtime.protocol.job import check_importable
from em_blocks.tasks.base import BlockwiseTask, fingerprint
from em_blocks.tasks.masks import masked_blocks
from em_blocks.tasks.places import check_places
from em_blocks.volumes.stores.ledger import Ledger, incomplete, read_ledger

# Of an embedded database: its journal and a checkpoint beside the old one, on top of what mongod
# needs to start. A block's record takes 150 bytes when it is written once (10^5 measured).
DATABASE_BYTES = 64 << 20
DATABASE_BYTES_PER_BLOCK = 1000


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
        """Return voxels of the blocks marked in a bool array (z, y, x) over the grid."""
        sizes = [
            np.minimum(np.arange(1, n + 1) * b, v) - np.arange(n) * b
            for n, b, v in zip(
                self.grid.shape, self.grid.block_shape, self.grid.volume_shape, strict=True
            )
        ]
        return int(np.einsum("zyx,z,y,x->", blocks.astype(np.int64), *sizes))


def check_task(
    task: BlockwiseTask, made_here: Collection[str] = (), *, launched: bool = True
) -> Checked:
    """Open all inputs and check that every block can be done.

    Parameters
    ----------
    made_here : collection of str
        Paths that earlier steps of the same command make.
    launched : bool
        Whether worker processes will do the blocks, and not this one.

    Raises
    ------
    EmBlocksError
        The first problem, as one paragraph. Nothing was written.
    """
    grid = task.grid()
    check_inputs(task, made_here)
    task.check()
    check_places(task)
    task.check_alignment()
    for output in task.output_specs():
        output.check(grid)
    if launched:
        check_importable(task)
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
    task.survey()
    return checked


def check_steps(steps: Sequence[BlockwiseTask]) -> list[Checked]:
    """Check the steps of one command, each of which may read what those before it make."""
    checked, made_here = [], set()
    for step in steps:
        checked.append(check_task(step, made_here))
        made_here |= {output.path for output in step.output_specs()}
    return checked


def check_inputs(task: BlockwiseTask, made_here: Collection[str]) -> None:
    """Raise `IncompleteInputError` by what inputs say themselves; asks no database."""
    for name, path in ((name, path_of(ref)) for name, ref in task.sources().items()):
        ledger = None if path in made_here else read_ledger(path)
        # An open ledger without a hole: the database may know that all is well.
        if ledger is not None and ledger.missing.any():
            refuse_incomplete(task, name, path, ledger)


def refuse_incomplete(task: BlockwiseTask, name: str, path: str, ledger: Ledger) -> None:
    """Raise `IncompleteInputError` for an input that lacks blocks, unless `task` skips them."""
    if task.incomplete_inputs == "refuse" and not ledger.complete:
        raise IncompleteInputError(incomplete(name, path, ledger, ledger.missing))


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
    """Raise `ConfigError` if a disk cannot hold what the blocks of `n_voxels` voxels add to it."""
    if n_voxels == 0:
        return
    disks: dict[int, list[_Part]] = {}
    for part in _parts(task, n_voxels):
        check_writable(part.folder.parent)
        disks.setdefault(_existing(part.folder).stat().st_dev, []).append(part)
    for parts in disks.values():
        needed, free = sum(p.nbytes for p in parts), shutil.disk_usage(_existing(parts[0].folder)).free
        if needed > free:
            each = ", ".join(f"{part.name} {part.nbytes / 1e9:.3g}" for part in parts)
            raise ConfigError(
                f"The disk of {parts[0].folder} is too small: the blocks that are left need up to "
                f"{needed / 1e9:.3g} GB ({each}), and {free / 1e9:.3g} GB are free. The run would stop "
                "in the middle; free some space, choose another disk, or a smaller dtype or ROI."
            )


def _parts(task: BlockwiseTask, n_voxels: int) -> list[_Part]:
    """Return what the blocks of `n_voxels` voxels write to disks of this machine."""
    parts = [
        _Part(f"output {output.name!r}", Path(output.folder), output.nbytes(n_voxels))
        for output in task.output_specs() if output.folder is not None
    ]
    if task.db_host is None:
        n_blocks = math.ceil(n_voxels / math.prod(task.grid().block_shape))
        records = DATABASE_BYTES + n_blocks * DATABASE_BYTES_PER_BLOCK
        parts.append(_Part("database", database_home(task.home), records))
    return parts


class _Part(NamedTuple):
    """Something that a run writes."""

    name: str
    folder: Path
    nbytes: float


def _existing(path: Path) -> Path:
    """Return the deepest existing parent of `path`."""
    while not path.exists():
        path = path.parent
    return path

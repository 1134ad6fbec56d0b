"""Ledger of an output: the run that made it, and its blocks that are done.

The database is the truth while a run works. A later reader of a volume or a folder of tables may
have another database, or none; so the scheduler leaves a ledger beside the voxels, in the file
``em_blocks_blocks.json``. It is opened before the first block of a start and closed after the last,
so a reader of an open one knows that the run is not at its end.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np

from em_blocks.errors import IncompleteInputError
from em_blocks.geometry import BlockGrid, Frame, Triple
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.store import LEDGER

N_NAMED = 5


@dataclass(frozen=True)
class Ledger:
    """The blocks of one output.

    Attributes
    ----------
    run, run_id : str
        Name of the run that owns the output, and its unique id.
    task : str
        Kind of its task.
    fingerprint, content_id : str
        Of its settings, and of those together with the contents of its inputs.
    grid : BlockGrid
    state : {"open", "closed"}
        Open while a scheduler works on the run, and after it was killed.
    generation : (z, y, x) uint32 array
        Per block, 0 where it is missing, otherwise the start of the run (its epoch) that stored it: a
        block that is recomputed gets a higher number.
    masked : (z, y, x) bool array
        Blocks that the run's mask leaves out; they hold 0 and are not missing.
    command : str
        What was typed to start the run last.
    owner : str
        Of an open one: ``host:pid:start`` of the scheduler that opened it.
    """

    run: str
    run_id: str
    task: str
    fingerprint: str
    content_id: str
    grid: BlockGrid
    state: Literal["open", "closed"]
    generation: np.ndarray = field(repr=False)
    masked: np.ndarray = field(repr=False)
    command: str = ""
    owner: str = ""

    @property
    def done(self) -> np.ndarray:
        """Bool (z, y, x): blocks that are stored."""
        return self.generation > 0

    @property
    def missing(self) -> np.ndarray:
        """Bool (z, y, x): blocks that are neither stored nor masked."""
        return ~(self.done | self.masked)

    @property
    def complete(self) -> bool:
        """Whether the run has ended with every block that its mask leaves."""
        return self.state == "closed" and not self.missing.any()

    def replaced(self, **values) -> Self:
        """Return the same ledger with other values."""
        return replace(self, **values)


def read_ledger(path: str) -> Ledger | None:
    """Return the ledger of the volume or folder of tables at `path`; None where no run left one.

    Raises
    ------
    VolumeError
        If the file is damaged.
    """
    values = store.read_json(path, LEDGER)
    if values is None:
        return None
    with store.explained(f"{store.join(path, LEDGER)} cannot be understood"):
        return _from_json(values)


def write_ledger(path: str, ledger: Ledger) -> None:
    """Store the ledger of the output at `path`, in one piece."""
    store.write_json(path, LEDGER, _to_json(ledger))


def require_complete(path: str, *, name: str = "input") -> None:
    """Raise `IncompleteInputError` if the output at `path` lacks blocks.

    Volumes that no run of em_blocks made, or one that left no ledger, pass.
    """
    ledger = read_ledger(path)
    if ledger is not None and not ledger.complete:
        raise IncompleteInputError(incomplete(name, path, ledger, ledger.missing))


def incomplete(name: str, path: str, ledger: Ledger, missing: np.ndarray) -> str:
    """Return the paragraph that says what an incomplete input lacks, and how to complete it.

    Parameters
    ----------
    name : str
        What the reader calls the input.
    missing : (z, y, x) bool array
    """
    if missing.any():
        lacks = f"lacks {int(missing.sum())} of {ledger.grid.n_blocks} blocks ({named_blocks(missing)})"
    else:
        lacks = "was not closed: its run is at work, or was killed, and may still change blocks"
    again = f"`{ledger.command}`" if ledger.command else "the command that started it"
    return (
        f"The {name} {path} is not complete: run {ledger.run!r} ({ledger.task}) {lacks}. Where blocks "
        f"are missing it reads 0, and results made of that would be wrong without a sign. Complete it "
        f"with {again} (quarantined blocks: `em-blocks retry` with the same config), or set "
        '"incomplete_inputs": "skip" in the config of a blockwise run: blocks that need what is missing '
        "then wait, and the run ends with exit code 1."
    )


def named_blocks(blocks: np.ndarray) -> str:
    """Return the first blocks of a bool array (z, y, x), as ``zi/yi/xi``."""
    indices = np.argwhere(blocks)
    names = ", ".join("/".join(map(str, index)) for index in indices[:N_NAMED].tolist())
    return names + (", ..." if len(indices) > N_NAMED else "")


def _to_json(ledger: Ledger) -> dict:
    grid = ledger.grid
    return {
        "run": ledger.run, "run_id": ledger.run_id, "task": ledger.task,
        "fingerprint": ledger.fingerprint, "content_id": ledger.content_id, "state": ledger.state,
        "command": ledger.command, "owner": ledger.owner,
        "grid": {
            "voxel_size": list(grid.frame.voxel_size), "offset": list(grid.frame.offset),
            "volume_shape": list(grid.volume_shape), "block_shape": list(grid.block_shape),
        },
        "generation": packed(ledger.generation.astype("<u4").tobytes()),
        "masked": packed(np.packbits(ledger.masked).tobytes()),
    }


def _from_json(values: dict) -> Ledger:
    try:
        found = values["grid"]
        grid = BlockGrid(
            Frame(found["voxel_size"], found["offset"]), tuple(found["volume_shape"]),
            tuple(found["block_shape"]),
        )
        generation = np.frombuffer(unpacked(values["generation"]), "<u4").reshape(grid.shape)
        return Ledger(
            **{name: values[name] for name in (
                "run", "run_id", "task", "fingerprint", "content_id", "state", "command", "owner")},
            grid=grid, generation=generation, masked=_bits(unpacked(values["masked"]), grid.shape),
        )
    except (KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _bits(data: bytes, shape: Triple) -> np.ndarray:
    n = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(data, np.uint8), count=n).astype(bool).reshape(shape)


def packed(data: bytes) -> str:
    """Return bytes as text: compressed, in base 64. 10^6 equal numbers take 6 kB."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def unpacked(text: str) -> bytes:
    """Return the values that `packed` was given."""
    return zlib.decompress(base64.b64decode(text))

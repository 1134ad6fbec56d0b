"""Files of a training that are whole or absent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from em_blocks.errors import RunFailedError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then put it there.

    Raises
    ------
    RunFailedError
        If the disk refuses; what was at `path` is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
        _to_disk(partial)
        partial.replace(path)
        _to_disk(path.parent)
    except _refusals() as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [repr(error)])[0]
        raise RunFailedError(
            f"{path} cannot be written: {reason}. What was saved before is whole. Make room on the "
            "disk (or repair it), then continue with --resume."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _refusals() -> tuple[type[Exception], ...]:
    """Return how a full disk is said: by Python, by torch, and by safetensors where that is used.

    Records are read where it need not be installed.
    """
    used = sys.modules.get("safetensors")
    return (OSError, RuntimeError, *([] if used is None else [used.SafetensorError]))


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

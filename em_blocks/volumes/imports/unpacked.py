"""Compressed files, unpacked to a temporary one, of which any part can be read."""

from __future__ import annotations

import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from em_blocks.errors import ConfigError

UNPACKING = (OSError, EOFError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
"""What the modules of Python raise for a damaged file, and for a full disk."""

_PIECE = 1 << 20


class Readable(Protocol):
    """An open file, of whatever compression."""

    def read(self, n: int = -1, /) -> bytes: ...

    def readline(self, n: int = -1, /) -> bytes: ...


@contextmanager
def unpacked(source: str, stream: Readable) -> Iterator[Path]:
    """Copy a stream to a temporary file, which is deleted at the end; yield its path.

    Parameters
    ----------
    source : str
        What messages call it.

    Raises
    ------
    ConfigError
        If it is damaged, or does not fit on the disk.
    """
    with tempfile.NamedTemporaryFile(prefix="em-blocks-") as file:
        with explained(source):
            while piece := stream.read(_PIECE):
                file.write(piece)
            file.flush()
        yield Path(file.name)


def unpacked_size(source: str, stream: Readable) -> int:
    """Read a stream to its end and return the number of its bytes; raises `ConfigError`."""
    n = 0
    with explained(source):
        while piece := stream.read(_PIECE):
            n += len(piece)
    return n


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turn what is raised for a damaged file, or a full disk, into a `ConfigError`."""
    try:
        yield
    except UNPACKING as error:
        raise ConfigError(
            f"{source} cannot be unpacked: {error or type(error).__name__}. Check that it was copied "
            f"completely, and that {tempfile.gettempdir()} (TMPDIR) has room for it: every worker "
            "unpacks its own copy there."
        ) from error

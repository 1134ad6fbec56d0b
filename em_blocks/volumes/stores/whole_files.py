"""Atomic writing of files and folders: they appear in one piece, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success its files atomically replace `path` (and siblings).

    After an error the files that were there before are as they were, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own: some formats are two files, and some writers need a journal.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        yield Path(folder, path.name)
        for file in sorted(Path(folder).iterdir()):
            file.replace(path.with_name(file.name))


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it replaces `folder` as a whole.

    After an error `folder` is as it was, and nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        new = Path(temporary, "new")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(Path(temporary, "old"))
        new.rename(folder)

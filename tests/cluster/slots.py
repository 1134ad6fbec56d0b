"""Numbers that tell clusters on one machine apart, and what a killed one left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from cluster.network import Network
from cluster.processes import kill_all, with_variable

FOLDER = Path("/run/em_blocks-slurm")
N_SLOTS = 64
CONTROLLER = 10
"""Last part of the address of the host of slurmctld, scheduler and database."""
NODES = (1, 2, 3)


class Slot:
    """A number that no other living cluster has; the kernel takes it back however its owner ends.

    Attributes
    ----------
    number : int
    folder : Path
        Configuration and sockets: socket paths must be short.
    network : Network
        Of this number; whether it exists is up to the owner.
    """

    def __init__(self, number: int, lock: int):
        self.number, self._lock = number, lock
        self.folder = FOLDER / str(number)
        self.network = Network(number, (*NODES, CONTROLLER))

    @property
    def config(self) -> Path:
        """Slurm's configuration, which is also the mark of all processes of the cluster."""
        return self.folder / "slurm.conf"

    def clean(self) -> None:
        """End all processes of this number, and remove its network and its folder."""
        kill_all(lambda: with_variable("SLURM_CONF", str(self.config)))
        self.network.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        os.close(self._lock)


def take_slot() -> Slot:
    """The lowest free number, after the leftovers of all dead clusters have been removed.

    Raises
    ------
    RuntimeError
        If this is not root, or all numbers are taken.
    """
    if os.geteuid() != 0:
        raise RuntimeError("a Slurm of several nodes on one machine can be started by root only")
    FOLDER.mkdir(exist_ok=True, mode=0o755)
    taken = None
    for number in range(N_SLOTS):
        path = FOLDER / f"{number}.lock"
        if taken is not None and not path.exists():
            break
        lock = os.open(path, os.O_RDWR | os.O_CREAT)
        if not _locked(lock):
            os.close(lock)
            continue
        slot = Slot(number, lock)
        slot.clean()
        if taken is None:
            taken = slot
        else:
            slot.release()
    if taken is None:
        raise RuntimeError(f"{N_SLOTS} clusters are running already")
    return taken


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Places where the commands of a chaos round run, and the processes to hit there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pymongo

from cluster.mongod import Mongod
from cluster.processes import command_line, kill_all, with_variable
from cluster.slots import CONTROLLER
from cluster.slurm import Slurm
from em_blocks.db.connect import connect
from em_blocks.db.server import embedded_server

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]
MARK = "EM_BLOCKS_CHAOS"
"""Environment variable of everything that a campaign starts; its folder."""
COMMON = {
    # Shorter than some cuts and some freezes, so that blocks are taken from workers that come back.
    "num_workers": 3, "worker_timeout_s": 5, "block_timeout_s": 12, "db_outage_s": 60, "max_retries": 3,
}


class Local:
    """Workers and an embedded database on this machine.

    Parameters
    ----------
    folder : Path
        Of the campaign; also the mark of its processes.
    output : Path
        Run folder of the round.
    """

    name = "local"

    def __init__(self, folder: Path, output: Path):
        self.folder, self.output, self.disk = folder, output, output.parent
        self.command: subprocess.Popen | None = None
        self.asked_to_stop: int | None = None
        """Process number of the command that was told to end."""

    def options(self) -> dict:
        """Return what all configs of a round have in common here."""
        return {**COMMON, "num_workers": 2}

    def start(self, arguments: list[str], log: Path, answer: Path) -> subprocess.Popen:
        """Start an em-blocks command as a user would, in a process group of its own."""
        with open(log, "ab") as log_file, open(answer, "wb") as answer_file:
            self.command = self.launch(
                [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=answer_file,
                stderr=log_file, start_new_session=True,
            )
        return self.command

    def launch(self, command: list[str], **popen) -> subprocess.Popen:
        """Start a process on the host of the scheduler."""
        return subprocess.Popen(command, env=self._environment(), **popen)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, MARK: str(self.folder)}

    def marked(self, *words: str) -> list[psutil.Process]:
        """Living processes of this campaign whose command line holds all `words`."""
        return [
            process for pid in with_variable(MARK, str(self.folder))
            if all(word in command_line(pid) for word in words) and (process := living(pid))
        ]

    def scheduler(self) -> psutil.Process | None:
        """Return the command, while it runs."""
        return living(self.command.pid) if self.command and self.command.poll() is None else None

    def at_work(self, scheduler: psutil.Process) -> bool:
        """Tell whether this start of the command takes workers: it has written a session for them."""
        with suppress(FileNotFoundError):  # it is deleted when the workers are dismissed
            sessions = self.output.glob("sessions/*.json")
            return any(path.stat().st_mtime > scheduler.create_time() for path in sessions)
        return False

    def workers(self) -> list[psutil.Process]:
        return [p for p in self.marked("em_blocks.workers.") if is_python(p)]

    def mongod(self) -> psutil.Process | None:
        """Return the server of the database, if it runs."""
        return next(iter(self.marked("mongod", "--dbpath")), None)

    @contextmanager
    def database(self) -> Iterator[pymongo.MongoClient]:
        """A client of the round's database."""
        with embedded_server(self.output / "db") as uri, connect(uri) as client:
            yield client

    def restart_database(self) -> None:
        """Nothing to do: an embedded mongod is started again by its supervisor."""

    def begin(self) -> None:
        """An empty output folder, an empty database."""
        shutil.rmtree(self.output, ignore_errors=True)

    def settle(self) -> None:
        """Everything stands again, after the faults of a round are healed."""

    def abort(self) -> None:
        """End a round that does not end by itself."""
        kill_all(self._of_the_round)

    def _of_the_round(self) -> list[int]:
        return with_variable(MARK, str(self.folder))

    def end(self) -> None:
        """Kill everything that is left."""
        kill_all(lambda: with_variable(MARK, str(self.folder)))


class Cluster(Local):
    """Workers on three Slurm nodes with cables; scheduler and database on a fourth host.

    Attributes
    ----------
    slurm : cluster.slurm.Slurm
    down : set of int
        Nodes without slurmd.
    cut : set of int
        Hosts whose cable is pulled.
    """

    name = "Slurm"

    def __init__(self, folder: Path, output: Path):
        super().__init__(folder, output)
        self.slurm = Slurm(folder / "slurm", namespaces=True)
        self.slurm.start()
        self.down, self.cut = set(), set()
        self.server = Mongod(self.slurm, folder / "mongod")
        try:
            self.server.__enter__()
        except BaseException:
            self.slurm.stop()
            raise
        self._login = folder / "database.uri"
        self._login.touch(mode=0o600)
        self._login.write_text(self.server.uri())

    def options(self) -> dict:
        return {
            **COMMON, "launcher": "slurm", "db_host": f"file:{self._login}",
            "scheduler_host": self.slurm.address,
            "cluster": {"partition": "em", "cpus": 1, "memory_gb": 1},
        }

    def launch(self, command: list[str], **popen) -> subprocess.Popen:
        return self.slurm.run_in(CONTROLLER, command, env=self._environment(), **popen)

    def restart_database(self) -> None:
        """Start mongod again after its crash; its journal has what it confirmed."""
        self.server.start()

    def _environment(self) -> dict[str, str]:
        return {**self.slurm.environment(), MARK: str(self.folder)}

    def workers_on(self, node: int) -> list[psutil.Process]:
        """Workers of a node, also of one that Slurm gave up as failed."""
        there = set(self.slurm.processes_on(node))
        return [worker for worker in self.workers() if worker.pid in there]

    def mongod(self) -> psutil.Process | None:
        found = self.slurm.processes_on(CONTROLLER)
        pids = [pid for pid in found if "--dbpath" in command_line(pid)]
        return next(filter(None, map(living, pids)), None)

    @contextmanager
    def database(self) -> Iterator[pymongo.MongoClient]:
        with connect(self.server.local_uri, outage_s=30.0) as client:
            yield client

    def begin(self) -> None:
        super().begin()
        with self.database() as client:
            client.drop_database("em_blocks")
            # On disk before the first fault: a mongod that is killed now would have it all again.
            client.admin.command("fsync")

    def settle(self) -> None:
        self.slurm.scancel("--full", "--user=root")
        self.slurm.wait_idle(120)

    def end(self) -> None:
        with suppress(Exception):
            self.server.stop()
        self.slurm.stop()
        super().end()


def living(pid: int) -> psutil.Process | None:
    """Return the process, unless it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def is_python(process: psutil.Process) -> bool:
    """Tell whether it is the worker itself, and not srun or a shell with the same words."""
    with suppress(psutil.Error):
        return "python" in Path(process.exe()).name
    return False


def signalled(process: psutil.Process, number: int) -> bool:
    """Send a signal; whether anything alive got it."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.send_signal(number)
        return True
    except psutil.NoSuchProcess:
        return False


def thawed(process: psutil.Process) -> None:
    """End a freeze, if the process still exists."""
    signalled(process, signal.SIGCONT)


def wait_until(condition, timeout_s: float) -> bool:
    """Tell whether `condition()` became true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True

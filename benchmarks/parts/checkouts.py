"""A checkout of em_blocks with an environment of its own: its commands and its database.

Nothing here imports em_blocks: the checkout may be of any commit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pymongo

MARK = "EM_BLOCKS_BENCHMARK"
"""Environment variable of everything that a checkout starts; the folder of its results."""


class CommandFailed(Exception):
    """A command ended with another exit code than 0."""


class Checkout:
    """Commands of one checkout, with their results in one folder.

    Parameters
    ----------
    path : Path
        Of the checkout; its environment is in ``.venv``.
    folder : Path
        Working directory of all commands. Databases are in ``folder / "run"``, where the configs
        do not say otherwise.
    """

    def __init__(self, path: Path, folder: Path):
        self.path, self.folder = path.resolve(), folder
        self.binary = self.path / ".venv/bin/em-blocks"
        self.log = folder / "commands.log"

    def start(self, arguments: list[str]) -> subprocess.Popen:
        """Start a command in a process group of its own; its messages go to `log`."""
        environment = {**os.environ, MARK: str(self.folder)}
        with open(self.log, "ab") as log:
            log.write(f"$ {self.path}: em-blocks {' '.join(arguments)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [str(self.binary), *arguments], cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )

    def run(self, arguments: list[str]) -> str:
        """Run a command to its end; what it printed. Raises `CommandFailed`."""
        process = self.start(arguments)
        answer = process.communicate()[0]
        if process.returncode:
            tail = self.log.read_text(errors="replace")[-3000:]
            raise CommandFailed(
                f"{self.path}: em-blocks {' '.join(arguments)} ended with exit code "
                f"{process.returncode}: {answer[-2000:]}\n{tail}"
            )
        return answer

    @contextmanager
    def database(self, config: list[str]) -> Iterator[pymongo.database.Database]:
        """Yield the embedded database of a config (and its ``--set`` options), which runs meanwhile."""
        uri = self.run(["db", "start", *config]).split()[-1]
        try:
            with pymongo.MongoClient(uri, tz_aware=True) as client:
                yield client["em_blocks"]
        finally:
            self.run(["db", "stop", *config])

    def kill(self, *first: int) -> None:
        """``kill -9`` everything that was started for this folder, mongod and its supervisor too.

        Parameters
        ----------
        first : int
            Processes that end before the others are looked for, which takes a moment.
        """
        for pid in first:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while found := list(self._marked()):
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(found, timeout=5)

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get(MARK) == str(self.folder)
                ):
                    yield process


@contextmanager
def running_database(
    home: Path, process: subprocess.Popen
) -> Iterator[tuple[pymongo.database.Database, int]]:
    """Return the embedded database in `home`, as soon as a command has started it, and its process."""
    file = home / "db/server.json"
    while process.poll() is None:
        with suppress(OSError, ValueError, pymongo.errors.PyMongoError):
            server = json.loads(file.read_text())
            address = f"mongodb://127.0.0.1:{server['port']}"
            client = pymongo.MongoClient(address, serverSelectionTimeoutMS=200)
            client.admin.command("ping")
            break
        time.sleep(0.02)
    else:
        raise CommandFailed(f"the command ended before a database was in {home}")
    with client:
        yield client["em_blocks"], server["pid"]

"""A MongoDB server with users on a host of the cluster, as a site runs it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from urllib.parse import quote_plus

import pymongo

from cluster.slots import CONTROLLER
from cluster.slurm import Slurm
from em_blocks.db.server import mongod_binary

START_TIMEOUT_S = 30.0
USER, PASSWORD = "em", "ge:heim/9"


class Mongod:
    """A server on the host of slurmctld that asks for user and password; a context manager.

    Processes on the cluster reach it by `uri`, this process by `local_uri`: through a socket in the
    file system, because the cluster's network may be out of its reach.
    """

    def __init__(self, cluster: Slurm, folder: Path):
        self._cluster, self._folder = cluster, Path(folder)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Mongod:
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        self.start()
        self.add_user(USER, PASSWORD, "root")
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        address = f"127.0.0.1,{self._cluster.address}" if self._cluster.namespaces else "127.0.0.1"
        self._process = self._cluster.run_in(
            CONTROLLER,
            [mongod_binary(), "--dbpath", self._folder / "data", "--bind_ip", address,
             "--port", self._cluster.database_port, "--auth",
             "--unixSocketPrefix", self._cluster.socket_folder,
             "--logpath", self._folder / "mongod.log", "--logappend", "--wiredTigerCacheSizeGB", "0.25",
             "--setParameter", "diagnosticDataCollectionEnabled=false",
             "--wiredTigerEngineConfigString", "log=(enabled=true,file_max=4MB,prealloc=false)"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with pymongo.MongoClient(
            self._socket_uri(""), serverSelectionTimeoutMS=int(START_TIMEOUT_S * 1000)
        ) as client:
            client.admin.command("ping")

    def stop(self) -> None:
        """End it in order; its data stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it -9, as a crash does."""
        self._end(signal.SIGKILL)

    def add_user(self, name: str, password: str, role: str) -> None:
        """A user for all databases; the first one may be added by anybody on this host."""
        login = "" if name == USER else f"{USER}:{quote_plus(PASSWORD)}@"
        with pymongo.MongoClient(self._socket_uri(login)) as client:
            client.admin.command("createUser", name, pwd=password, roles=[role])

    def uri(self, name: str = USER, password: str = PASSWORD) -> str:
        """Address for processes on the cluster."""
        host = f"{self._cluster.address}:{self._cluster.database_port}"
        return f"mongodb://{name}:{quote_plus(password)}@{host}/?authSource=admin&directConnection=true"

    @property
    def local_uri(self) -> str:
        """Address for this process."""
        return self._socket_uri(f"{USER}:{quote_plus(PASSWORD)}@")

    def _socket_uri(self, login: str) -> str:
        socket = f"{self._cluster.socket_folder}/mongodb-{self._cluster.database_port}.sock"
        options = "?authSource=admin&directConnection=true" if login else ""
        return f"mongodb://{login}{quote_plus(socket)}/{options}"

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

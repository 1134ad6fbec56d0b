"""Shared helper: real MongoDB servers that are stopped, killed, frozen, and that want logins or TLS."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo
import pytest

from em_blocks.db.server import mongod_binary
from em_blocks.db.supervise import accepts, free_port

PASSWORD = "x9Qz/t@p:s3kr8t"
"""Distinctive, and with characters that a URI must escape."""
ESCAPED = "x9Qz%2Ft%40p%3As3kr8t"


class Mongod:
    """A server on one port, which may end and come back.

    Parameters
    ----------
    home : Path
        Folder of its data and log.
    options : str
        Further options of mongod.
    """

    def __init__(self, home: Path, *options: str):
        (home / "data").mkdir(parents=True)
        self.home, self.options, self.port = home, options, free_port()
        self.process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        return f"mongodb://{self.address}"

    def start(self) -> None:
        """Start it, again after `kill`, and wait until it answers."""
        self.process = subprocess.Popen(
            [mongod_binary(), "--dbpath", self.home / "data", "--port", str(self.port),
             "--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25",
             "--logpath", self.home / "log", "--logappend", "--quiet",
             "--setParameter", "diagnosticDataCollectionEnabled=false",
             "--wiredTigerEngineConfigString", "log=(enabled=true,file_max=4MB,prealloc=false)",
             *self.options],
            stdout=subprocess.DEVNULL, start_new_session=True,
        )
        while not accepts(self.port):
            assert self.process.poll() is None, (self.home / "log").read_text()[-2000:]
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """End it in order, as an administrator would: calls under way are told so."""
        self.process.terminate()
        self.process.wait(60)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nobody, and no connection breaks: as behind a cut link."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            while not self._stopped():
                time.sleep(0.001)
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def _stopped(self) -> bool:
        """Whether no thread of it runs any more."""
        states = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        return all(state.read_text().rpartition(")")[2].split()[0] in "tT" for state in states)


@contextmanager
def mongod(home: Path, *options: str) -> Iterator[Mongod]:
    server = Mongod(home, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def mongod_with_auth(tmp_path_factory) -> Iterator[Mongod]:
    """A server with users, whose password is `PASSWORD`: ``em`` and ``reader`` of the database
    ``em_blocks``, ``stranger`` without any right, and ``local``, who is kept in ``em_blocks``."""
    with mongod(tmp_path_factory.mktemp("auth"), "--auth") as server:
        # The first user may be made without a login, from this machine.
        with pymongo.MongoClient(server.uri) as client:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with pymongo.MongoClient(server.uri, username="root", password=PASSWORD) as client:
            for user, roles in (("em", ["readWrite"]), ("reader", ["read"]), ("stranger", [])):
                granted = [{"role": role, "db": "em_blocks"} for role in roles]
                client.admin.command("createUser", user, pwd=PASSWORD, roles=granted)
            client.em_blocks.command("createUser", "local", pwd=PASSWORD, roles=["readWrite"])
        yield server


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Path:
    """Folder of a private authority (ca.pem) and a server certificate of it (server.pem)."""
    folder = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(folder, "req", "-x509", *key, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem",
             "-subj", "/CN=our lab")
    _openssl(folder, "req", *key, "-keyout", "s.key", "-out", "s.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    _openssl(folder, "x509", "-req", "-in", "s.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-days", "2", "-out", "s.crt", "-extfile", "names")
    (folder / "server.pem").write_text((folder / "s.key").read_text() + (folder / "s.crt").read_text())
    return folder


@pytest.fixture(scope="session")
def mongod_with_tls(authority, tmp_path_factory) -> Iterator[Mongod]:
    """A server that requires TLS, with a certificate of `authority`, but no login."""
    with mongod(
        tmp_path_factory.mktemp("tls-server"), "--tlsMode", "requireTLS", "--tlsCertificateKeyFile",
        str(authority / "server.pem"), "--tlsCAFile", str(authority / "ca.pem"),
        "--tlsAllowConnectionsWithoutCertificates",
    ) as server:
        yield server


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """`folder` is a disk of its own of this size."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"this test needs a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

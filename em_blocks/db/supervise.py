"""Keeps one private mongod alive while anybody uses it, and not a moment longer.

Run as a script with the standard library alone: ``python supervise.py HOME MONGOD``. Every user
of the database holds a shared lock on ``HOME/users.lock``; the kernel drops it however the user
ends, ``kill -9`` included. When the lock is free (and ``HOME/keep`` does not exist) mongod is
stopped. A mongod that dies is started again on the same port, so a run survives its crash; on
a full disk, where it would die again at once, only when there is space.
"""

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

POLL_S = 0.2
MAX_RESTARTS = 20
LONGEST_PAUSE_S = 30.0
# What lived for so long has not died of its start.
STABLE_S = 60.0
# Recovery from the journal and a checkpoint; an empty database takes 5 MB.
NEEDED_BYTES = 32 << 20
PORT_IN_USE = 48
KILLED = {-signal.SIGKILL, -signal.SIGTERM}
PR_SET_PDEATHSIG = 1


def main(home: Path, mongod: str) -> int:
    with open(home / "supervisor.lock", "a") as alone:
        if not locked(alone):
            return 0  # another supervisor is at work here
        return supervise(home, mongod)


def locked(file) -> bool:
    """Take an exclusive lock; others hold it for an instant when they look whether it is free."""
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def supervise(home: Path, mongod: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then lets go
    server, crashes = None, 0

    def end(*_):
        if server is not None:
            stop(home, server)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    port = free_port()
    while crashes < MAX_RESTARTS:
        if not wait_for_space(home):
            return 0
        began = time.monotonic()
        server = start(home, mongod, port)
        code, announced = watch(home, server, port)
        if code is None:
            stop(home, server)
            return 0
        if code == PORT_IN_USE and not announced:
            port = free_port()
        elif not (announced or code in KILLED or lacks_space(home)):
            break  # it cannot start at all; its log says why
        crashes = crashes + 1 if time.monotonic() - began < STABLE_S else 1
        if not pause(home, min(LONGEST_PAUSE_S, 0.1 * 2 ** (crashes - 1))):
            return 0
    (home / "server.json").unlink(missing_ok=True)
    return 1


def pause(home: Path, seconds: float) -> bool:
    """Wait before another start; False if no process needs it any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if unused(home):
            return False
        time.sleep(0.1)
    return True


def wait_for_space(home: Path) -> bool:
    """Wait while the disk is full; False if no process needs the server any more."""
    while lacks_space(home):
        if not pause(home, 1.0):
            return False
    return True


def lacks_space(home: Path) -> bool:
    return shutil.disk_usage(home).free < NEEDED_BYTES


def start(home: Path, mongod: str, port: int) -> subprocess.Popen:
    command = [
        mongod, "--dbpath", str(home / "data"), "--port", str(port), "--bind_ip", "127.0.0.1",
        "--wiredTigerCacheSizeGB", "0.5", "--logpath", str(home / "mongod.log"), "--logappend",
        "--quiet", "--setParameter", "diagnosticDataCollectionEnabled=false",
        # A small journal: the default preallocates 300 MB for an empty database. Changed pages wait
        # for the checkpoint of the next minute: by default they are written as soon as they fill 5 % of
        # the cache, which for 10^6 synapses with their indexes took most of the server's time.
        "--wiredTigerEngineConfigString",
        "log=(enabled=true,file_max=4MB,prealloc=false),"
        "eviction_dirty_target=60,eviction_dirty_trigger=80",
    ]
    # Socket paths are limited to 107 characters by the kernel.
    fits = len(str(home)) < 80
    command += ["--unixSocketPrefix", str(home)] if fits else ["--nounixsocket"]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, preexec_fn=die_with_parent,
    )


def die_with_parent() -> None:
    """Send SIGTERM to mongod when this process ends: nothing else would stop it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def watch(home: Path, server: subprocess.Popen, port: int) -> tuple[int | None, bool]:
    """Wait until mongod ends (its exit code) or no process uses it any more (None).

    The second value tells whether it ever answered.
    """
    announced = False
    while True:
        code = server.poll()
        if code is not None:
            return code, announced
        if not announced and accepts(port):
            announced = announce(home, server.pid, port)
        if announced and unused(home):
            return None, announced
        time.sleep(POLL_S if announced else 0.02)


def announce(home: Path, pid: int, port: int) -> bool:
    """Tell others where the server is, in one piece; False if that cannot be written now."""
    values = {"port": port, "pid": pid, "supervisor": os.getpid()}
    temporary = home / "server.json.new"
    try:
        temporary.write_text(json.dumps(values))
        temporary.replace(home / "server.json")
    except OSError as error:  # a full disk, which must not end the server as well
        print(f"server.json: {error}", file=sys.stderr, flush=True)
        return False
    return True


def unused(home: Path) -> bool:
    if (home / "keep").exists():
        return False
    with open(home / "users.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Withdrawn while we hold the lock: a newcomer must start its own server.
        (home / "server.json").unlink(missing_ok=True)
        return True


def stop(home: Path, server: subprocess.Popen) -> None:
    (home / "server.json").unlink(missing_ok=True)
    if server.poll() is None:
        server.terminate()
        server.wait(60)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def accepts(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1.0)
        return s.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    # The child of no process: the process that started us may end, or run on and never wait for us.
    if os.fork() == 0:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

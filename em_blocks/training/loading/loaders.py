"""The loaders of a training: processes that each make a share of its batches."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe

from em_blocks.errors import RunFailedError
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.samples import SampleBatch
from em_blocks.training.loading.worker import Share

SILENT_S = 60.0
"""Seconds without a sign of life after which a loader hangs: one attempt at a sample takes less."""
MOST = 8
"""Loaders unless a config says more. Each makes some eight samples of 2**16 voxels per second and holds
400 MB, as it imports torch."""
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


def usual_loaders() -> int:
    """Return the number of loaders of this machine: one core is left to the training."""
    return min(MOST, max(1, len(os.sched_getaffinity(0)) - 1))


class Loaders:
    """Processes that make the batches `first` ... `last` - 1, which are asked for in order.

    Loader k of n makes every n-th batch, so the batches do not depend on n. Processes are started
    afresh, not forked: the threads of storage libraries do not survive a fork.

    Parameters
    ----------
    config : SetupConfig
    context : (3,) int
        Of the network, voxels of raw.
    first, last : int
    count : int
        At least 1.
    """

    def __init__(
        self, config: SetupConfig, context: tuple[int, int, int], first: int, last: int, count: int
    ):
        self.first = first
        self._loaders: list[_Loader] = []
        try:
            for number in range(min(count, last - first)):
                share = Share(config, context, first + number, last, count)
                self._loaders.append(_Loader(share))
        except OSError as error:
            self.close()
            raise RunFailedError(
                f"A loader of batches could not be started: {error}. Set training.loaders to 0, with "
                "which the training makes its batches itself."
            ) from error

    def get(self, index: int) -> SampleBatch:
        """Return the batch `index`.

        Raises
        ------
        RunFailedError
            If the loader was killed, or gave no sign of life for `SILENT_S`.
        EmBlocksError
            That the loader met.
        """
        return self._loaders[(index - self.first) % len(self._loaders)].get(index)

    def close(self) -> None:
        """End all loaders at once: they hold nothing that could be lost."""
        for loader in self._loaders:
            loader.close()

    @property
    def processes(self) -> list[int]:
        """Their process ids."""
        return [loader.process.pid for loader in self._loaders]


class _Loader:
    def __init__(self, share: Share):
        self.connection, theirs = Pipe()
        self.process = _start(theirs)
        theirs.close()  # so that the connection ends with the process
        self.connection.send(tuple(share))

    def get(self, index: int) -> SampleBatch:
        limit_reads(self.connection, SILENT_S)
        while True:
            try:
                found = self.connection.recv()
            except BlockingIOError as error:
                raise RunFailedError(
                    f"A loader (process {self.process.pid}) made no progress with batch {index} for "
                    f"{SILENT_S:.0f} s. Its data may lie on a disk or server that does not answer. "
                    "What was saved is sound: go on with --resume; with training.loaders 0 the "
                    "training itself reads and waits as long as it takes."
                ) from error
            except (EOFError, OSError) as error:
                raise self._died(index) from error
            if isinstance(found, Exception):
                raise found
            if found is not None:
                return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _died(self, index: int) -> RunFailedError:
        code = self.process.wait()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return RunFailedError(
            f"A loader (process {self.process.pid}) ended {how} before it had made batch {index}. If "
            "the memory was full, lower training.loaders or training.batch_size. What was saved is "
            "sound: go on with --resume."
        )


def limit_reads(connection: Connection, seconds: float) -> None:
    """Let reads of a connection fail with `BlockingIOError` once no byte came for so long.

    Unlike a `poll` before them, this also ends a wait for the rest of a message that was sent in part.
    """
    whole, rest = divmod(seconds, 1)
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(whole), int(rest * 1e6))
        )


def _start(connection: Connection) -> subprocess.Popen:
    """Start a process that imports what this one can, and is not stopped by its Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "em_blocks.training.loading.worker", str(connection.fileno())],
        pass_fds=[connection.fileno()], process_group=0, stdin=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

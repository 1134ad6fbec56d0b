"""Workers that a user or a job script starts."""

from __future__ import annotations

from em_blocks.runtime.launchers.base import Connections, Launcher, Workers


class ExternalLauncher(Launcher):
    """Starts nothing: workers come by ``em-blocks join CONFIG``, on any host."""

    coming = "start some with `em-blocks join CONFIG`, here or on another host"

    def poll(self, connections: Connections, workers: Workers) -> None:
        pass

    def stop(self) -> None:
        pass

    def last_log_line(self) -> str:
        return "nothing that could be seen here"

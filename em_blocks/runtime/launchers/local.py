"""Workers on this machine."""

from __future__ import annotations

import shutil

from em_blocks.errors import ConfigError
from em_blocks.runtime.launchers.environment import worker_environment
from em_blocks.runtime.launchers.slots import Slot, SlotLauncher
from em_blocks.tasks.base import BlockwiseTask


class LocalLauncher(SlotLauncher):
    """Starts worker processes on this machine, which share its cores and take turns on its GPUs."""

    local = True
    coming = "they load what they need"

    @classmethod
    def check(cls, task: BlockwiseTask) -> None:
        if task.container is not None and shutil.which(task.container.runtime) is None:
            raise ConfigError(
                f"'container' starts workers by {task.container.runtime!r}, which is not on PATH here."
            )

    def environment(self, slot: Slot) -> dict[str, str]:
        return worker_environment(self.n_workers, slot.number)

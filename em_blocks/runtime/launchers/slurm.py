"""Workers in jobs of Slurm, one srun each."""

from __future__ import annotations

from em_blocks.runtime.launchers.base import Launcher
from em_blocks.runtime.launchers.slots import Slot, SlotLauncher, call
from em_blocks.runtime.launchers.slurm_array import SlurmArrayLauncher
from em_blocks.runtime.launchers.slurm_jobs import SlurmJobs, excluded, slurm_options
from em_blocks.tasks.base import BlockwiseTask


class SlurmLauncher(SlotLauncher, SlurmJobs):
    """Starts each worker by srun, which ends with it."""

    @classmethod
    def chosen(cls, task: BlockwiseTask) -> type[Launcher]:
        return SlurmArrayLauncher if task.cluster.array else cls

    def prefix(self, slot: Slot, avoid: set[str]) -> list[str]:
        return ["srun", f"--job-name={self.job(slot)}", *excluded(avoid), *slurm_options(self.task)]

    def cancel(self, slot: Slot) -> None:
        call(["scancel", "--signal=KILL", "--full", f"--name={self.job(slot)}"])
        call(["scancel", f"--name={self.job(slot)}"])

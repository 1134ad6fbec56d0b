"""Workers in jobs of LSF, one bsub -K each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from em_blocks.runtime.launchers.job_script import one_each
from em_blocks.runtime.launchers.slots import Slot, SlotLauncher, call
from em_blocks.tasks.base import BlockwiseTask


class LsfLauncher(SlotLauncher):
    """Starts each worker by ``bsub -K``, which ends with it."""

    commands = ("bsub", "bkill")
    reached = True
    coming = "they may wait in the queue of LSF (bjobs)"

    @classmethod
    def directives(cls, task: BlockwiseTask, logs: Path, n: int, name: str) -> Sequence[str]:
        lines = [*one_each(lsf_options(task)), f'-J "{name}[1-{n}]"', f"-o {logs}/worker-%J_%I.log"]
        return [f"#BSUB {line}" for line in lines]

    def prefix(self, slot: Slot, avoid: set[str]) -> list[str]:
        away = " && ".join(f"hname!='{host}'" for host in sorted(avoid))
        return ["bsub", "-K", "-J", self.job(slot), *(["-R", f"select[{away}]"] if away else []),
                *lsf_options(self.task)]

    def cancel(self, slot: Slot) -> None:
        call(["bkill", "-J", self.job(slot)])


def lsf_options(task: BlockwiseTask) -> list[str]:
    """Return what a worker asks of LSF."""
    cluster = task.cluster
    values = {
        "-q": cluster.partition, "-P": cluster.account, "-gpu": cluster.gres,
        "-M": cluster.memory_gb and f"{round(cluster.memory_gb * 1024)}MB",
        "-n": cluster.cpus, "-W": cluster.walltime_min,
    }
    given = [str(part) for pair in values.items() if pair[1] is not None for part in pair]
    return [*given, *task.launcher_options]

"""Options and job scripts of workers in jobs of Slurm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from em_blocks.runtime.launchers.base import Launcher
from em_blocks.runtime.launchers.job_script import one_each
from em_blocks.tasks.base import BlockwiseTask


class SlurmJobs(Launcher):
    """Base of the launchers of Slurm."""

    commands = ("srun", "sbatch", "squeue", "scancel")
    reached = arrays = True
    coming = "they may wait in the queue of Slurm (squeue)"

    @classmethod
    def directives(cls, task: BlockwiseTask, logs: Path, n: int, name: str) -> Sequence[str]:
        # Not queued again by Slurm, minutes later: the scheduler sees sooner what is missing.
        lines = [*one_each(slurm_options(task)), f"--job-name={name}", f"--array=1-{n}", "--no-requeue",
                 f"--output={logs}/worker-%A_%a.log", "--open-mode=append"]
        # The queue's name of a worker tells the scheduler when its job has ended.
        slot = 'export EM_BLOCKS_SLOT="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'
        return [*(f"#SBATCH {line}" for line in lines), slot]


def slurm_options(task: BlockwiseTask) -> list[str]:
    """Return what a worker asks of Slurm, for srun, sbatch and job scripts."""
    cluster = task.cluster
    values = {
        "--partition": cluster.partition, "--account": cluster.account, "--gres": cluster.gres,
        "--mem": cluster.memory_gb and f"{round(cluster.memory_gb * 1024)}M",
        "--cpus-per-task": cluster.cpus, "--time": cluster.walltime_min,
    }
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    return ["--nodes=1", "--ntasks=1", *given, *task.launcher_options]


def excluded(hosts: set[str]) -> list[str]:
    """Return the option of srun and sbatch that keeps a worker away from hosts."""
    return [f"--exclude={','.join(sorted(hosts))}"] if hosts else []

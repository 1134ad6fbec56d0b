"""What a worker asks of a cluster, and the container that it runs in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from em_blocks.config import StrictModel


class Cluster(StrictModel):
    """What one worker asks of Slurm or LSF; whatever is not named is the site's default."""

    partition: str | None = Field(None, description="Partition (Slurm) or queue (LSF).")
    account: str | None = Field(None, description="Account (Slurm) or project (LSF).")
    gres: str | None = Field(
        None, description='Generic resources, for example "gpu:1"; given to bsub as -gpu.'
    )
    memory_gb: PositiveFloat | None = Field(None, description="Memory of one worker.")
    cpus: PositiveInt | None = Field(None, description="Cores of one worker.")
    walltime_min: PositiveInt | None = Field(
        None,
        description="Minutes that a worker may run. It leaves in time, and another one follows.",
    )
    array: bool = Field(
        False, description="Slurm only: submit the workers as job arrays instead of one srun each."
    )


class Container(StrictModel):
    """The container that workers run in; em_blocks must be installed in it."""

    runtime: Literal["apptainer", "singularity", "docker"]
    image: str = Field(description="Image file, or name for docker.")
    options: tuple[str, ...] = Field(
        (), description='Further options, for example ["--nv", "--bind=/scratch"].'
    )

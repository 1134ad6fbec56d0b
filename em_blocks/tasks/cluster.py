"""How workers are started: the launcher, what they ask of a cluster, and their container."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, WithJsonSchema
from pydantic_core import PydanticKnownError

from em_blocks.config import StrictModel
from em_blocks.plugins import Registry

LAUNCHERS = Registry("em_blocks.launchers", {
    "local": "em_blocks.runtime.launchers.local:LocalLauncher",
    "slurm": "em_blocks.runtime.launchers.slurm:SlurmLauncher",
    "lsf": "em_blocks.runtime.launchers.lsf:LsfLauncher",
    "external": "em_blocks.runtime.launchers.external:ExternalLauncher",
}, base="em_blocks.runtime.launchers.base:Launcher")
"""Launchers by the ``launcher`` of configs."""


def _registered(name: str) -> str:
    if name not in LAUNCHERS.builtin and name not in LAUNCHERS.names():
        *names, last = map(repr, LAUNCHERS.names())
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(names)} or {last}"})
    return name


LauncherName = Annotated[
    str, AfterValidator(_registered),
    WithJsonSchema({"enum": list(LAUNCHERS.builtin), "type": "string"}),
]
"""A launcher of this package, or one that another package registers."""


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

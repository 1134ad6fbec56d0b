"""Keys of a config that all runs have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

import psutil
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from em_blocks.config import LocalPath, StrictModel, VolumeRef, is_url
from em_blocks.errors import ConfigError
from em_blocks.geometry import Triple
from em_blocks.tasks.cluster import LAUNCHERS, Cluster, Container, LauncherName
from em_blocks.tasks.run_name import run_name

if TYPE_CHECKING:
    from em_blocks.tasks.task import BlockwiseTask

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class RunConfig(StrictModel, ABC):
    """What all runs have in common: name, place, database, workers."""

    operational: ClassVar[frozenset[str]] = frozenset(
        {"run", "run_dir", "db_host", "db_name", "num_workers", "block_timeout_s", "max_retries",
         "launcher", "launcher_options", "cluster", "container", "scheduler_host", "scheduler_port",
         "worker_timeout_s", "db_outage_s", "speculate", "incomplete_inputs"}
    )
    """Fields that say how to run, not what comes out; not part of the fingerprint."""

    fits_block: ClassVar[bool] = False
    """Whether a block shape that the config does not give follows from the memory of a worker."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name volumes and folders of tables to read, besides the mask. What they hold decides
    the result, not how they are spelt: the fingerprint knows them by their contents."""

    run: RunName = Field(description="Name of the run in the database; the key for resuming it.")
    run_dir: LocalPath | None = Field(
        None,
        description="Folder for summary.json, logs and the embedded database. "
        "Default: the folder that holds the output; needed if that is in an object store.",
    )
    mask: VolumeRef | None = Field(
        None,
        description="Volume of any voxel size; a block where it is 0 everywhere is not computed.",
    )
    incomplete_inputs: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What to do about an input whose own run is not complete. refuse: do not start. "
        "skip: blocks that read what is missing wait, the run ends with exit code 1 and names them, and "
        "the same command does them when the input is complete.",
    )
    num_workers: PositiveInt = Field(1, description="Worker processes (slots).")
    launcher: LauncherName = Field(
        "local",
        description="How worker processes are started: here, by Slurm, by LSF, or by hand with "
        "`em-blocks join`.",
    )
    cluster: Cluster = Field(Cluster(), description="What a worker asks of the cluster.")
    launcher_options: tuple[str, ...] = Field(
        (), description='Further options of srun, sbatch or bsub, for example ["--qos=long"].'
    )
    container: Container | None = Field(None, description="Run workers in a container.")
    scheduler_host: str = Field(
        "127.0.0.1",
        description="Address of this machine that workers connect to; only that interface listens.",
    )
    scheduler_port: int = Field(
        0, ge=0, le=65535, description="Port that workers connect to; 0 takes any that is free."
    )
    db_host: str | None = Field(
        None,
        description="MongoDB host or URI, or file:PATH of a private file with it; environment "
        "variables are expanded, so no password needs to stand here. Default: a private mongod in "
        "run_dir.",
    )
    db_name: str = Field("em_blocks", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    block_timeout_s: PositiveFloat | None = Field(
        None,
        description="A block that takes longer is given to another worker. Default: an hour until "
        "five blocks have been measured, then 20 times the longest of nine in ten, at least 2 min.",
    )
    worker_timeout_s: PositiveFloat = Field(
        30, ge=2,
        description="A worker whose host does not answer for so long is lost; others do its blocks.",
    )
    db_outage_s: PositiveFloat = Field(
        120, description="How long scheduler and workers wait for a database that does not answer."
    )
    speculate: bool = Field(
        False,
        description="Give blocks that take unusually long to a second, idle worker; the first counts.",
    )
    max_retries: NonNegativeInt = Field(
        2, description="Further attempts at a failing block before it is quarantined."
    )

    def __init__(self, **values: Any):
        """Make the task in Python, where `kind` need not be given, nor `run` (see `run_name`)."""
        kind = type(self).model_fields["kind"]
        if kind.is_required():
            values.setdefault("kind", *get_args(kind.annotation))
        values.setdefault("run", run_name(values.get("output"), values.get("kind", kind.default)))
        super().__init__(**values)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # as in StrictModel

    @abstractmethod
    def steps(self) -> list[BlockwiseTask]:
        """Return the tasks that together make the result, each reading what those before it wrote."""

    @property
    def first_run(self) -> str:
        """Name of the run of the first step."""
        return self.run

    def memory_of_worker(self) -> float:
        """Return the bytes that a worker may use: as stated, else its share of half of this machine."""
        stated = self.cluster.memory_gb
        return stated * 1e9 if stated else psutil.virtual_memory().total / self.num_workers / 2

    def with_block(self, shape: Triple) -> Self:
        """Return the same task with this block shape, voxels (z, y, x)."""
        return self.model_copy(update={"block_shape": shape})

    def fitted(self) -> Self:
        """Return the same task with the largest block shape whose worker fits into its memory.

        Raises
        ------
        ConfigError
            If not even the smallest block fits.
        """
        return self

    def results(self) -> dict[str, str]:
        """Return what a user looks for by its name, where it is not what the last step writes."""
        return {}

    def publish(self) -> None:
        """Finish what is not of any block when all are done, e.g. metadata of a pyramid."""

    @property
    def home(self) -> Path:
        """Folder of summary.json, logs and the embedded database."""
        if self.run_dir is not None:
            return self.run_dir
        container = self.outputs_root()
        if is_url(container):
            raise ConfigError(
                f"The output {container} is in an object store, so the key 'run_dir' must name a "
                "local folder for summary.json, logs and the database."
            )
        return Path(container).parent

    @property
    def workers_here(self) -> bool:
        """Whether workers run on this machine, so that measurements in this process hold for them."""
        return LAUNCHERS.get(self.launcher).local

    @abstractmethod
    def outputs_root(self) -> str:
        """Return the path or URL of the container of all outputs."""

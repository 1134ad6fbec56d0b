"""The front door for notebooks and scripts; `import em_blocks` offers these names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from em_blocks.config import VolumeInput, read_json
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.extras import needed_extras
from em_blocks.geometry import Frame, triple
from em_blocks.outputs import RunContext
from em_blocks.tasks import task_class
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.kernels.synthetic.mitochondria import Mitochondria
    from em_blocks.kernels.synthetic.volume import Phantom
    from em_blocks.runtime.runs.report import RunReport

__all__ = ["Report", "generate", "generate_mitochondria", "load", "open", "run", "shipped_setup"]


def open(path: str | Path | VolumeInput, *, mode: Literal["r", "r+"] = "r") -> Volume:
    """Open an array of any format, here or in an object store.

    Parameters
    ----------
    path : str, Path or VolumeInput
        For example "data/cube.zarr/raw"; a VolumeInput says what the metadata do not.
    mode : {"r", "r+"}
        "r+" to write as well.

    Raises
    ------
    VolumeError
        If there is no array at `path`, or it does not tell its voxel size.
    """
    return Volume.open(path if isinstance(path, VolumeInput) else str(path), mode=mode)


def load(config: str | Path, *overrides: str) -> RunConfig:
    """Read a JSON config, whatever its kind.

    Parameters
    ----------
    config : str or Path
        Relative paths in it are relative to its folder.
    overrides : str
        ``"key.path=value"``, as `em-blocks --set` takes them.

    Raises
    ------
    ConfigError
        If it cannot be read, or does not fit its kind of task.
    """
    return task_class(read_json(Path(config)).get("kind")).from_file(config, overrides)


def run(
    task: RunConfig | str | Path | Sequence[RunConfig], *, serial: bool = False,
    progress: bool = True, overwrite: bool = False, adopt: bool = False, retry: bool = False,
) -> Report:
    """Do all blocks of a task that are not done, as its verb on the command line does.

    Parameters
    ----------
    task : RunConfig, str, Path, or sequence of RunConfig
        A task, the path of its config, or several tasks, each of which reads what those before
        it wrote.
    serial : bool
        Do the blocks one by one in this thread, without worker processes: for a debugger, and for
        classes that are defined in a notebook. Records and results are the same.
    progress : bool
        Show on stderr how far it is.
    overwrite, adopt, retry : bool
        Delete an earlier run of this name first; keep its blocks although settings differ; try
        blocks that failed again.

    Returns
    -------
    Report
        Also of a run that is not complete: see `Report.ok`.

    Raises
    ------
    EmBlocksError
        If it cannot or must not start; nothing was changed.
    """
    from em_blocks.runtime.runs.block_shape import with_block_shape
    from em_blocks.runtime.scheduler.pipeline import run_config

    console = Console(stderr=True, quiet=not progress)
    tasks = [task] if isinstance(task, (RunConfig, str, Path)) else task
    steps: list[BlockwiseTask] = []
    reports: list[RunReport] = []
    with needed_extras():
        for each in tasks:
            config = with_block_shape(each if isinstance(each, RunConfig) else load(each))
            steps += config.steps()
            reports += run_config(
                config, serial=serial, console=console, overwrite=overwrite, adopt=adopt, requeue=retry
            )
            if not reports[-1].ok:
                break
    return Report(steps, reports)


def generate(
    output: str | Path, *, seed: int, shape: Sequence[int] = (64, 512, 512),
    voxel_size: Sequence[float] = (40, 4, 4), neurite_nm: float = 300.0,
    synapses_per_um3: float = 8.0,
) -> Phantom:
    """Make an EM-like volume of neurites, mitochondria and synapses with its truth, and store it.

    Parameters
    ----------
    output : str or Path
        NAME.zarr becomes a folder of the volumes raw, neurons and mitochondria and the table
        synapses.parquet; NAME.hdf (.h5, .hdf5) a file as in the CREMI challenge.
    seed : int
        The same seed makes the same volume.
    shape : (3,) int
        Voxels (z, y, x).
    voxel_size : (3,) float
        nm per voxel (z, y, x).
    neurite_nm : float
        Typical thickness of a neurite, nm.
    synapses_per_um3 : float
        T-bars per cubic micrometre, each with one to five partners.

    Returns
    -------
    Phantom
        The same volume in memory, as arrays (z, y, x).

    Raises
    ------
    RefusedError
        If `output` exists.
    EmBlocksError
        If its format is unknown, or it cannot be written.
    """
    from em_blocks.export.phantom import phantom_writer
    from em_blocks.kernels.synthetic.volume import phantom

    output = Path(output)
    write = phantom_writer(output)
    _check_free(output)
    made = phantom(
        shape, voxel_size=voxel_size, seed=seed, neurite_nm=neurite_nm,
        synapses_per_um3=synapses_per_um3,
    )
    _check_free(output)  # a large volume takes minutes, in which another process may have made it
    write(output, made, Frame(triple(voxel_size)))
    return made


def generate_mitochondria(
    output: str | Path, *, seed: int, shape: Sequence[int] = (64, 512, 512),
    voxel_size: Sequence[float] = (30, 8, 8), per_um3: float = 4.0,
) -> Mitochondria:
    """Make mitochondria that touch, branch and thin out to necks, and maps of them, and store both.

    The maps look as networks predict them: blurred, too wide, noisy, with gaps in contours and false
    spots. They are the input of a search for thresholds and of tests of it.

    Parameters
    ----------
    output : str or Path
        NAME.zarr becomes a folder of the volumes mitochondria (ids), foreground, contour and
        signed_distance (uint8, 255 is 1.0).
    seed : int
        The same seed makes the same volumes.
    shape : (3,) int
        Voxels (z, y, x). Any number: they are made block by block.
    voxel_size : (3,) float
        nm per voxel (z, y, x).
    per_um3 : float
        Mitochondria per cubic micrometre; 4 fill about an eighth of the volume.

    Returns
    -------
    Mitochondria
        The spheres that they consist of, and which ones were grown to touch.

    Raises
    ------
    RefusedError
        If `output` exists.
    EmBlocksError
        If its format is unknown, or it cannot be written.
    """
    from em_blocks.export.mitochondria import write_mitochondria

    output = Path(output)
    _check_free(output)
    return write_mitochondria(
        output, shape=triple(shape), frame=Frame(triple(voxel_size)), seed=seed, per_um3=per_um3
    )


def shipped_setup(name: str) -> Path:
    """Return the folder of a setup that em_blocks brings, trained: the `setup` of `Predict`.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    folder = Path(str(resources.files("em_blocks.setups")))
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if name not in names:
        raise ConfigError(f"There is no setup {name!r}; em_blocks brings {', '.join(names)}.")
    return folder / name


def _check_free(output: Path) -> None:
    """Raise an error if something would be overwritten, or the folder cannot be written."""
    from em_blocks.runtime.runs.preflight import check_writable

    if output.exists():
        raise RefusedError(
            f"{output} exists and is not overwritten: another volume in its place would make all "
            "results from it wrong. Choose another name, or remove it first."
        )
    check_writable(output.parent)


class Outputs(Mapping[str, Any]):
    """What a run wrote, by name: volumes, tables per block, synapses; opened when asked for."""

    def __init__(self, steps: Sequence[BlockwiseTask]):
        # A later step replaces what an earlier one calls by the same name.
        self._made = {out.name: (out, step) for step in steps for out in step.output_specs()}

    def __getitem__(self, name: str) -> Any:
        output, step = self._made[name]
        if output.ledger_path is not None:
            return output.value(RunContext())
        with database_uri(step.db_host, step.home) as uri, connect(uri) as client:
            return output.value(RunContext(store=RunStore(client, step.db_name, step.run)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {path}" for name, path in self.paths().items())

    def paths(self) -> dict[str, str]:
        """Return where every output lies."""
        return {name: output.path for name, (output, _) in self._made.items()}


class Report:
    """How a run ended, with its outputs.

    Attributes
    ----------
    steps : list of RunReport
        Of every step that began, in their order.
    outputs : Outputs
        What they wrote, by name: ``report.outputs["affinities"]`` is a `Volume`.
    """

    def __init__(self, steps: Sequence[BlockwiseTask], reports: list[RunReport]):
        self.steps = reports
        self.outputs = Outputs(steps[:len(reports)])
        self._decisive = next((report for report in reports if not report.ok), reports[-1])
        self._all_began = len(reports) == len(steps)

    @property
    def ok(self) -> bool:
        """Whether all blocks of all steps are done."""
        return self._decisive.ok and self._all_began

    @property
    def state(self) -> str:
        """Return "done", "failed" or "stopped"."""
        return self._decisive.state

    @property
    def reason(self) -> str | None:
        """Return why not all blocks are done, if so."""
        return self._decisive.reason

    def __repr__(self) -> str:
        lines = [", ".join(row) for row in self._rows()]
        if not self.ok:
            lines.append(f"{self.state}: {self.reason}; logs: {self._decisive.logs}")
        return os.linesep.join([*lines, *(repr(self.outputs).splitlines())])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in [*self._rows(), *self.outputs.paths().items()]
        )
        why = "" if self.ok else f"<p>{escape(self.state)}: {escape(str(self.reason))}</p>"
        return f"<table>{rows}</table>{why}"

    def _rows(self) -> list[tuple[str, str, str]]:
        """Run, blocks and time of every step."""
        return [
            (f"{step.run} ({step.task}): {step.state}",
             f"{step.blocks['done']} of {step.blocks['total'] - step.blocks['masked']} blocks",
             f"{step.wall_s:.1f} s")
            for step in self.steps
        ]

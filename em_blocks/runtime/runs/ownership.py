"""What a run made, and may therefore delete: where its record and the outputs themselves agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from em_blocks.config import is_url
from em_blocks.errors import RefusedError
from em_blocks.outputs import TableOutput
from em_blocks.outputs.volume import fingerprint_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.places import output_places
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.stores.ledger import read_ledger
from em_blocks.volumes.stores.places import same_place
from em_blocks.volumes.stores.store import container, join


@dataclass(frozen=True)
class Recorded:
    """An output as the record of a run has it; of synapses, which the database holds, none exists."""

    name: str
    path: str

    def exists(self) -> bool:
        """Return whether there is a volume or a folder of tables."""
        return detect(self.path) is not None or self._tables.exists()

    def stored_fingerprint(self) -> str | None:
        """Of the run that made what there is."""
        return self._tables.stored_fingerprint() or fingerprint_of(self.path)

    @property
    def _tables(self) -> TableOutput:
        return TableOutput(self.name, self.path)


def recorded_outputs(run: dict, home: Path) -> list[Recorded]:
    """Return all outputs in the document of a run, which has them by their place in the run's folder."""
    return [
        Recorded(name, path if is_url(path) or os.path.isabs(path) else join(str(home), path))
        for name, path in run["outputs"].items()
    ]


def check_removable(task: BlockwiseTask, run: dict | None) -> None:
    """Raise `RefusedError` unless the run made all that there is where it would be deleted.

    Parameters
    ----------
    run : dict or None
        The document of the task's run, if the database knows it.
    """
    for path, reason in _reasons(task, run):
        raise RefusedError(
            f"{path} is not deleted: {reason}. Only what run {task.run!r} made itself is ever deleted "
            "or overwritten, and nothing was changed. Look at what lies there, and delete it by hand if "
            "it is in the way, or choose another output."
        )


def check_overwritable(task: BlockwiseTask, run: dict | None) -> None:
    """As `check_removable`, and nothing else may lie where the task is to write.

    Raises
    ------
    RefusedError
    """
    check_removable(task, run)
    known = [output.path for output in recorded_outputs(run, task.home)] if run else []
    for name, path in output_places(task).items():
        if Recorded(name, path).exists() and not any(same_place(path, other) for other in known):
            raise RefusedError(
                f"{path} exists, and no run {task.run!r} in the database made it, so --overwrite does "
                "not delete it: it may be the only copy of other data. Delete it by hand if it is in "
                "the way, or choose another output."
            )


def _reasons(task: BlockwiseTask, run: dict | None) -> Iterator[tuple[str, str]]:
    """Yield outputs that must not be deleted, and why."""
    for output in recorded_outputs(run, task.home) if run else ():
        if output.exists() and (reason := _reason(output, task, run)):
            yield output.path, reason


def _reason(output: Recorded, task: BlockwiseTask, run: dict) -> str | None:
    if link := _link_on_the_way(output.path, task.home):
        return f"it is reached by the symbolic link {link}, behind which other data may lie"
    ledger = read_ledger(output.path)
    if ledger is not None and ledger.run_id == run.get("run_id"):
        return None
    if ledger is not None and "run_id" in run:
        return f"run {ledger.run!r} ({ledger.task}, `{ledger.command}`) owns it"
    found = output.stored_fingerprint()
    if found == run["fingerprint"]:
        return None
    return "nothing in it says that this run made it" if found is None else (
        f"it was made with other settings ({found[:8]}) than the run ({run['fingerprint'][:8]})"
    )


def _link_on_the_way(path: str, home: Path) -> str | None:
    """Return the first symlink from the run's folder (or that of the container) down to an output."""
    if is_url(path):
        return None
    start = home if Path(path).is_relative_to(home) else Path(container(path)).parent
    below = Path(path).relative_to(start).parts
    steps = (start.joinpath(*below[: n + 1]) for n in range(len(below)))
    return next((str(step) for step in steps if os.path.islink(step)), None)


def size_of(path: str) -> int | None:
    """Return the bytes of all files in a folder, links not followed; None for an object store."""
    if is_url(path):
        return None
    total, folders = 0, [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total

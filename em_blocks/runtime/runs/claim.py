"""Becoming the one scheduler of a run, or refusing."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import NamedTuple

import numpy as np

from em_blocks import __version__
from em_blocks.db.connect import redacted, scrub
from em_blocks.db.runs import DONE, RunStore, grid_document
from em_blocks.errors import (
    ChangedInputError,
    FingerprintMismatchError,
    RefusedError,
)
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.forget import forget_run
from em_blocks.runtime.runs.inputs import Inputs
from em_blocks.runtime.runs.leases import owner_lives, take_lease
from em_blocks.runtime.runs.ownership import check_overwritable
from em_blocks.runtime.runs.preflight import Checked
from em_blocks.tasks.base import BlockwiseTask, differences, differing_fields
from em_blocks.volumes.stores.ledger import Ledger, read_ledger

# What older records hold, and newer ones do not, or the other way round: times and
# places, by which an input was told from another one, and digests of contents, by which it is now.
OLD_RECORDS = ("mtime_ns", "bytes", "files_sha256", "made_by")
NEW_RECORDS = ("sections", "values_crc32")


class Claimed(NamedTuple):
    """A run that this process is the scheduler of.

    Attributes
    ----------
    epoch : int
    notes : list of str
        What the user is told.
    """

    epoch: int
    notes: list[str]


def claim(
    store: RunStore, task: BlockwiseTask, checked: Checked, inputs: Inputs, *,
    overwrite: bool, adopt: bool,
) -> Claimed:
    """Become the scheduler of this run, or refuse.

    Blocks that were made of what an input no longer holds are due again when this returns.

    Raises
    ------
    FingerprintMismatchError
        If a run of this name was made with other settings.
    ChangedInputError
        If an input holds other contents than when the run began.
    LeaseHeldError
        If another scheduler works on it.
    RefusedError
        If outputs exist that this run did not make, or are lost.
    """
    existing = store.load()
    check_owner(existing, task)
    if existing is None:
        _check_outputs(existing, store, task, checked)
        _create(store, task, checked, inputs, previous_epoch=0)
        return Claimed(take_lease(store, task), [])
    if overwrite or existing.get("removing"):  # whoever removed it died
        check_overwritable(task, existing)
        return Claimed(_begin_anew(store, task, checked, inputs), [])
    _check_same(existing, task, checked, adopt=adopt)
    _check_outputs(existing, store, task, checked)
    stale, notes = _compare(existing, store, task, inputs, adopt=adopt)
    epoch = take_lease(store, task)
    # Due first, recorded then: killed in between, the same blocks are found again.
    if n := store.requeue_blocks(stale, "; ".join(notes)):
        notes = [*notes, f"{n} blocks are done again for that."]
    store.update(**_adopted(existing, task, checked, inputs, adopt=adopt))
    return Claimed(epoch, notes)


def _begin_anew(store, task, checked, inputs) -> int:
    """Remove the old run and create a new one in its place; return the epoch."""
    epoch = take_lease(store, task)
    forget_run(store, task)
    _create(store, task, checked, inputs, previous_epoch=epoch)
    return take_lease(store, task)


def _adopted(existing: dict, task, checked: Checked, inputs: Inputs, *, adopt: bool) -> dict:
    """Return what the run's document is to say from now on."""
    values = {
        "contents": inputs.document(), "command": this_command(),
        "run_id": existing.get("run_id") or uuid.uuid4().hex,
        "content_id": existing.get("content_id") or inputs.content_id(existing["fingerprint"]),
    }
    if adopt:
        # Measured values belong to the settings: the missing blocks follow the new ones.
        values |= {
            "fingerprint": checked.fingerprint, "identity": checked.identity,
            "config": task.stored_config(), "outputs": _locations(task), "measured": None,
            "content_id": inputs.content_id(checked.fingerprint),
        }
    return values


def _check_same(existing: dict, task: BlockwiseTask, checked: Checked, *, adopt: bool) -> None:
    lines = [
        f"{path}: {old!r} -> {new!r}"
        for path, old, new in changed_settings(task, existing["identity"], checked.identity)
    ]
    lines += differing_fields(existing["outputs"], _locations(task), "output.")
    grid_changed = existing["grid"] != grid_document(checked.grid)
    if lines and (grid_changed or not adopt):
        raise FingerprintMismatchError(
            f"Run {task.run!r} exists with other settings: {'; '.join(lines)}. Going on would mix two "
            f"results in one volume. Decide: {_ways(grid_changed)}{task.other_ways(lines)}."
        )


def _ways(grid_changed: bool = False) -> str:
    ways = (
        "--overwrite deletes the old result and starts again, and --set run=NAME --set "
        "output=PATH starts another run beside it"
    )
    if grid_changed:
        return ways
    return ways + "; --adopt keeps the finished blocks and computes the missing ones in the new way"


def changed_settings(task: BlockwiseTask, old: dict, new: dict) -> Iterator[tuple[str, object, object]]:
    """Yield settings that differ between two identities of a task: path, old value, new value.

    An identity of an older version names inputs by their paths and times, which decide nothing.
    """
    old = {**old, "config": task.without_places(old["config"])}
    new = {**new, "config": task.without_places(new["config"])}
    for path, before, now in differences(old, new):
        leaf = path.rpartition(".")[2]
        dropped = leaf in OLD_RECORDS and now is None
        added = leaf in NEW_RECORDS and before is None
        if not (dropped or added):
            yield path, before, now


def _compare(
    existing: dict, store: RunStore, task: BlockwiseTask, inputs: Inputs, *, adopt: bool
) -> tuple[np.ndarray, list[str]]:
    """Return blocks that are to be done again for what inputs hold now, and what the user is told."""
    none = np.zeros(inputs.grid.shape, bool)
    if adopt:
        return none, []
    if existing.get("contents") is None:
        return none, ["its record does not say what its inputs held; they are taken as they are now."]
    done = store.mask(inputs.grid.shape, DONE)
    found = inputs.compare(existing["contents"], done)
    if refusals := [difference.refusal for difference in found if difference.refusal]:
        raise ChangedInputError(
            f"Run {task.run!r} was made of other data: {'; '.join(refusals)}. Going on would mix "
            f"two results in one volume. Decide: {_ways()}."
        )
    stale = np.any([difference.stale for difference in found], axis=0) if found else none
    return stale, [f"{difference.note}." for difference in found if difference.note]


def check_owner(existing: dict | None, task: BlockwiseTask) -> None:
    """Raise `RefusedError` if an output belongs to another run, whatever flags say."""
    for output in task.output_specs():
        ledger = output.ledger_path and read_ledger(output.ledger_path)
        if not ledger or _is_ours(ledger, existing, task):
            continue
        raise RefusedError(
            f"{output.path} belongs to run {ledger.run!r} ({ledger.task}), which was started by "
            f"`{ledger.command}`. Two runs in one place would destroy each other's blocks, so nothing "
            "is written or deleted there, with any flag. Choose another output, or remove that run with "
            "its own config: `em-blocks forget CONFIG`."
        )


def _is_ours(ledger: Ledger, existing: dict | None, task: BlockwiseTask) -> bool:
    if existing is not None and "run_id" in existing:
        return ledger.run_id == existing["run_id"]
    # The database that knew the run is lost: its name and settings tell, unless it may be at work.
    at_work = ledger.state == "open" and (not ledger.owner or owner_lives(ledger.owner))
    return ledger.run == task.run and not at_work


def _check_outputs(
    existing: dict | None, store: RunStore, task: BlockwiseTask, checked: Checked
) -> None:
    context = RunContext(store=store)
    for output in task.output_specs():
        if existing is None:
            output.check_new(context, checked.fingerprint)
        else:
            output.check_kept(context)


def _create(
    store: RunStore, task: BlockwiseTask, checked: Checked, inputs: Inputs, previous_epoch: int
) -> None:
    store.create(
        {
            "run_id": uuid.uuid4().hex,
            "task": task.kind,
            "fingerprint": checked.fingerprint,
            "content_id": inputs.content_id(checked.fingerprint),
            "identity": checked.identity,
            "contents": inputs.document(),
            "config": task.stored_config(),
            "command": this_command(),
            "outputs": _locations(task),
            "grid": grid_document(checked.grid),
            "n_blocks": checked.grid.n_blocks,
            "n_masked": int(checked.masked.sum()),
            "measured": None,
            "versions": versions(),
        },
        epoch=previous_epoch,
    )


def this_command() -> str:
    """Return what was typed to start this process, without passwords."""
    name = os.path.basename(sys.argv[0] or "python")
    return scrub(shlex.join([name, *map(_without_login, sys.argv[1:])]))


def _without_login(argument: str) -> str:
    key, equals, value = argument.partition("=")
    return f"{key}={redacted(value)}" if equals and "://" in value and "@" in value else argument


def _locations(task: BlockwiseTask) -> dict[str, str]:
    """Return the output paths, relative to the run folder where they are in it: folders get moved."""
    home = str(task.home) + "/"
    return {o.name: o.path.removeprefix(home) for o in task.output_specs()}


def versions() -> dict[str, str]:
    """Return versions of what could change a result."""
    packages = ("daisy", "tensorstore", "numpy", "torch", "pymongo")
    return {
        "em_blocks": __version__,
        "python": sys.version.split()[0],
        **{p: version(p) for p in packages},
    }

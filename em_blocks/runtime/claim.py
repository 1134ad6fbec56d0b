"""Becoming the one scheduler of a run, or refusing."""

from __future__ import annotations

import os
import socket
import sys
from importlib.metadata import version

import psutil

from em_blocks import __version__
from em_blocks.db.runs import DONE, RunStore, grid_document
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import FingerprintMismatchError, LeaseHeldError, RefusedError
from em_blocks.runtime.preflight import Checked
from em_blocks.tasks.base import BlockwiseTask, RowsSpec, differing_fields
from em_blocks.volumes.store import delete_folder


def claim(
    store: RunStore, task: BlockwiseTask, checked: Checked, *, overwrite: bool, adopt: bool
) -> int:
    """Become the scheduler of this run, or refuse; returns the epoch.

    Raises
    ------
    FingerprintMismatchError
        If a run of this name was made with other settings.
    LeaseHeldError
        If another scheduler works on it.
    RefusedError
        If outputs exist that no run of this database made, or are gone.
    """
    existing = store.load()
    if existing is not None and not overwrite:
        _check_same(existing, task, checked, adopt=adopt)
    if not overwrite:
        _check_outputs(existing, store, task, checked)
    if existing is None:
        _create(store, task, checked, previous_epoch=0)
    epoch = take_lease(store, task)
    if overwrite:
        forget_run(store, task)
        _create(store, task, checked, previous_epoch=epoch)
        epoch = take_lease(store, task)
    elif existing is not None and adopt:
        # Measured values belong to the settings: the missing blocks follow the new ones.
        store.update(fingerprint=checked.fingerprint, identity=checked.identity,
                     config=task.stored_config(), outputs=_locations(task), measured=None)
    return epoch


def _check_same(existing: dict, task: BlockwiseTask, checked: Checked, *, adopt: bool) -> None:
    lines = differing_fields(existing["identity"], checked.identity)
    if existing["fingerprint"] == checked.fingerprint:
        lines = []
    lines += differing_fields(existing["outputs"], _locations(task), "output.")
    grid_changed = existing["grid"] != grid_document(checked.grid)
    if lines and (grid_changed or not adopt):
        ways = (
            "--overwrite deletes the old result and starts again, and --set run=NAME --set "
            "output=PATH starts another run beside it"
        )
        if not grid_changed:
            ways += "; --adopt keeps the finished blocks and computes the missing ones in the new way"
        ways += task.other_ways(lines)
        raise FingerprintMismatchError(
            f"Run {task.run!r} exists with other settings: {'; '.join(lines)}. Going on would mix two "
            f"results in one volume. Decide: {ways}."
        )


def _check_outputs(
    existing: dict | None, store: RunStore, task: BlockwiseTask, checked: Checked
) -> None:
    for output in task.output_specs():
        if isinstance(output, RowsSpec):
            _check_rows(existing, store)
            continue
        present = output.exists()
        if present and existing is None:
            if output.stored_fingerprint() != checked.fingerprint:
                raise RefusedError(
                    f"{output.path} exists, but no run {task.run!r} in the database made it. It is not "
                    "overwritten by accident: choose another output, or use --overwrite to delete it "
                    "and start anew."
                )
        if not present and existing is not None and store.counts()[DONE]:
            raise RefusedError(
                f"The database has {store.counts()[DONE]} done blocks of run {task.run!r}, but their "
                f"output {output.path} is gone. Restore it, or use --overwrite to compute everything "
                "again."
            )


def _check_rows(existing: dict | None, store: RunStore) -> None:
    if existing is None and store.synapses.find_one({"run": store.run}, {"_id": 1}) is not None:
        raise RefusedError(
            f"The database has synapses of run {store.run!r}, but no such run made them. They would be "
            "mixed with new ones: choose another name, or use --overwrite to delete them."
        )


def _create(store: RunStore, task: BlockwiseTask, checked: Checked, previous_epoch: int) -> None:
    store.create(
        {
            "task": task.kind,
            "fingerprint": checked.fingerprint,
            "identity": checked.identity,
            "config": task.stored_config(),
            "outputs": _locations(task),
            "grid": grid_document(checked.grid),
            "n_blocks": checked.grid.n_blocks,
            "n_masked": int(checked.masked.sum()),
            "measured": None,
            "versions": versions(),
        },
        epoch=previous_epoch,
    )


def take_lease(store: RunStore, task: BlockwiseTask) -> int:
    """Become the only scheduler of an existing run; returns the epoch. Raises `LeaseHeldError`."""
    lease = store.load()["lease"]
    dead = lease["owner"] if lease["owner"] and not owner_lives(lease["owner"]) else None
    epoch = store.take_lease(this_owner(), from_owner=dead)
    if epoch is None:
        lease = store.load()["lease"]
        age = (store.now() - lease["heartbeat"]).total_seconds()
        raise LeaseHeldError(
            f"Run {task.run!r} is being worked on by {lease['owner']} (host:pid:start), whose last "
            f"heartbeat was {age:.0f} s ago. Two schedulers would do every block twice. Wait for it, or "
            "stop it; if it died on another host, it is taken over 30 s after its last heartbeat."
        )
    return epoch


def this_owner() -> str:
    """``host:pid:start`` of this process; the start time tells a reused pid apart."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def owner_lives(owner: str) -> bool:
    """Whether the process of a lease may live; on other hosts only the heartbeat can tell."""
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False


def _locations(task: BlockwiseTask) -> dict[str, str]:
    """Output paths, relative to the run folder where they are in it: folders get moved."""
    home = str(task.home) + "/"
    return {o.name: o.path.removeprefix(home) for o in task.output_specs()}


def forget_run(store: RunStore, task: BlockwiseTask) -> None:
    """Delete all records and outputs of a run."""
    # The records go first: killed in between, outputs without records are done again.
    store.remove()
    for output in task.output_specs():
        if isinstance(output, RowsSpec):
            output.remove(SynapseStore(store.client, task.db_name, task.run))
        elif output.exists():
            delete_folder(output.path)


def versions() -> dict[str, str]:
    """Versions of what could change a result."""
    packages = ("daisy", "tensorstore", "numpy", "torch", "pymongo")
    return {
        "em_blocks": __version__,
        "python": sys.version.split()[0],
        **{p: version(p) for p in packages},
    }

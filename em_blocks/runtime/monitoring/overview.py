"""Status of all steps of a config, with their workers and failures, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from em_blocks.db import progress
from em_blocks.db.leases import WORKER_TIMEOUT_S, WORKING
from em_blocks.db.runs import RunStore
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.runtime.monitoring.status import status_of
from em_blocks.runtime.runs.block_sets import masked_of

NOT_STARTED = "waiting"

# Most entries that are sent and shown; further ones are counted, but not listed.
N_WORKERS = 200
N_KINDS = 20
N_FAILING = 2000
N_ATTEMPTS = 10
TRACEBACK = 8000


@dataclass(frozen=True)
class StepView:
    """One run of a config, as it is shown to people.

    Attributes
    ----------
    name : str
        Of the step within its config, e.g. ``fragments``.
    replay : str
        Command that does one block again; ``{block}`` stands for its key.
    """

    name: str
    replay: str


def overview(steps: Mapping[StepView, RunStore]) -> dict:
    """Return everything but the single blocks.

    Returns
    -------
    dict
        ``{"steps": [...], "workers": [...], "worker_states": {...}, "failures": [...]}``, all of
        values that JSON knows. A step is what `run_status` returns of its run, with ``step``,
        ``replay``, ``task``, ``grid`` (as in the database), ``reason`` (why it ended early) and
        ``failing_sections`` (z of the block grid). Only the first three, and the state ``waiting``,
        of a step that was not started are there. A worker has ``done`` and ``failed`` (blocks of all
        steps), ``blocks`` (that it holds) and ``blocks_per_s`` since it joined.
    """
    runs = {step: store.load() for step, store in steps.items()}
    started = {step: store for step, store in steps.items() if runs[step] is not None}
    any_store = next(iter(steps.values()))
    names = {store.run: step.name for step, store in steps.items()}
    now = any_store.now()
    return {
        "steps": [_step(step, store, runs[step], now) for step, store in steps.items()],
        "workers": _workers(progress.workers(any_store, list(names), N_WORKERS), names, now),
        "worker_states": progress.worker_states(any_store, list(names)),
        "failures": [failure for step, store in started.items() for failure in _failures(step, store)],
    }


def _step(step: StepView, store: RunStore, run: dict | None, now: datetime) -> dict:
    shown = {"step": step.name, "run": store.run, "replay": step.replay}
    if run is None:
        return {**shown, "state": NOT_STARTED}
    status = status_of(store, run, now)
    failing = status["blocks"]["failed"] + status["blocks"]["quarantined"]
    keys = _failing(store, run) if failing else []
    return {
        **shown, **status, "task": run["task"], "grid": run["grid"],
        "failing_sections": sorted({int(key.partition("/")[0]) for key in keys}),
    }


def _failing(store: RunStore, run: dict) -> list[str]:
    """Return keys of failing blocks, without masked ones."""
    keys, masked = progress.failing(store, N_FAILING), masked_of(run)
    if masked is None or not run["n_hidden"]:
        return keys
    return [key for key in keys if not masked[tuple(map(int, key.split("/")))]]


def _workers(documents: list[dict], names: Mapping[str, str], now: datetime) -> list[dict]:
    """Return one entry per worker, however many steps it does blocks of."""
    found: dict[str, dict] = {}
    for document in documents:
        worker = found.setdefault(document["worker"], _worker(document, now))
        step = f"{names[document['run']]} " if len(names) > 1 else ""
        worker["blocks"] += [step + key for key in document.get("blocks", ())]
    return list(found.values())


def _worker(document: dict, now: datetime) -> dict:
    heartbeat, joined = document.get("heartbeat"), document.get("joined")
    last, done = document.get("left") or heartbeat or now, document.get("done", 0)
    seconds = (last - joined).total_seconds() if joined else 0.0
    age = (now - heartbeat).total_seconds() if heartbeat else None
    state = document.get("state", WORKING)
    if state == WORKING and age is not None and age > WORKER_TIMEOUT_S:
        state = "silent"  # the scheduler has not said yet what became of it
    return {
        **{key: document.get(key) for key in ("worker", "host", "device", "pid", "slot", "reason")},
        "state": state,
        "blocks": [],
        "done": done,
        "failed": document.get("failed", 0),
        "blocks_per_s": done / seconds if seconds > 0 else None,
        "heartbeat_age_s": age,
    }


def _failures(step: StepView, store: RunStore) -> list[dict]:
    found = progress.failures_by_error(store, N_KINDS)
    return [
        {**failure, "step": step.name, "last": _text(failure["last"]),
         "traceback": (failure["traceback"] or "")[-TRACEBACK:] or None,
         "replay": step.replay.format(block=failure["block"]) if failure["block"] else None}
        for failure in found
    ]


def block_details(step: StepView, store: RunStore, key: str) -> dict:
    """Return one block: its position, record, and failed attempts, latest first.

    Raises
    ------
    ConfigError
        If the run was not started.
    GeometryError
        If its grid has no such block.
    """
    run = store.load()
    if run is None:
        raise ConfigError(f"Run {store.run!r} was not started.")
    grid = grid_of(run)
    block = grid.block(tuple(map(int, key.split("/"))))
    document = store.block(block.key)
    return {
        "step": step.name, "block": block.key,
        "offset_nm": grid.frame.to_roi(block.write_box).offset, "shape": block.write_box.shape,
        "record": document and _plain(document),
        "attempts": [_plain(d) for d in progress.attempts(store, block.key, N_ATTEMPTS)],
        "replay": step.replay.format(block=block.key),
    }


def grid_of(run: dict) -> BlockGrid:
    """Return the block grid of a run's document."""
    grid = run["grid"]
    frame = Frame(grid["voxel_size"], grid["offset"])
    return BlockGrid(frame, tuple(grid["volume_shape"]), tuple(grid["block_shape"]))


def _plain(document: dict) -> dict:
    return {key: _text(value) if isinstance(value, datetime) else value
            for key, value in document.items()}


def _text(date: datetime | None) -> str | None:
    return date and date.isoformat(timespec="milliseconds")

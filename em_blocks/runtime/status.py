"""How a run stands, from the database alone."""

from __future__ import annotations

import math
from datetime import datetime

from em_blocks.db.runs import DONE, FAILED, LEASE_TIMEOUT_S, QUARANTINED, RunStore
from em_blocks.errors import ConfigError
from em_blocks.runtime.claim import owner_lives


def run_status(store: RunStore) -> dict:
    """State, block counts, rate and time left of a run.

    Returns
    -------
    dict
        ``{"run", "state", "blocks": {"total", "done", "failed", "quarantined", "masked",
        "running"}, "rate_mvox_s", "eta_s"}``. The rate is that of the latest start of the run:
        voxels of the blocks finished since then, per second. ``eta_s`` is None before the first
        block, and while nothing runs.

    Raises
    ------
    ConfigError
        If the database does not know the run.
    """
    run = store.load()
    if run is None:
        raise ConfigError(
            f"The database has no run {store.run!r}: it was never started, or under another name or "
            "in another database ('run', 'db_host', 'db_name', 'run_dir')."
        )
    state = _state(store, run)
    counts, running = store.counts(), store.running() if state == "running" else 0
    rate = _rate(store, run)
    left = run["n_blocks"] - run["n_masked"] - counts[DONE] - counts[QUARANTINED]
    eta = None
    if left == 0:
        eta = 0.0
    elif rate and state == "running":
        eta = left * math.prod(run["grid"]["block_shape"]) / 1e6 / rate
    return {
        "run": store.run,
        "state": state,
        "blocks": {
            "total": run["n_blocks"], "done": counts[DONE], "failed": counts[FAILED],
            "quarantined": counts[QUARANTINED], "masked": run["n_masked"], "running": running,
        },
        "rate_mvox_s": round(rate, 4),
        "eta_s": None if eta is None else round(eta, 1),
    }


def _state(store: RunStore, run: dict) -> str:
    """The run's state; ``stopped`` where its scheduler died without saying so."""
    if run["state"] != "running":
        return run["state"]
    age = (store.now() - run["lease"]["heartbeat"]).total_seconds()
    alive = age < LEASE_TIMEOUT_S and owner_lives(run["lease"]["owner"])
    return "running" if alive else "stopped"


def _rate(store: RunStore, run: dict) -> float:
    """Mvoxel/s of the latest start of the run."""
    started: datetime | None = run.get("session", {}).get("started")
    if started is None:
        return 0.0
    ended = run["session"].get("ended") or store.now()
    seconds = max(1e-3, (ended - started).total_seconds())
    return store.voxels_done_since(started) / 1e6 / seconds

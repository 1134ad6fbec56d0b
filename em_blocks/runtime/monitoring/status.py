"""Status of a run, from the database alone."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from em_blocks.db.leases import LEASE_TIMEOUT_S
from em_blocks.db.progress import latest_done
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore
from em_blocks.errors import ConfigError
from em_blocks.runtime.runs.block_sets import counts_of
from em_blocks.runtime.runs.leases import owner_lives

# The rate is measured on blocks of one minute, and on at least this number of blocks ...
RECENT_S = 60.0
RECENT_BLOCKS = 64
# ... but on no more than these, which thousands of workers do in seconds.
MOST_RECENT = 2000


def run_status(store: RunStore) -> dict:
    """Return state, block counts, rate and time left of a run.

    Returns
    -------
    dict
        ``{"run", "state", "blocks": {"total", "done", "failed", "quarantined", "masked",
        "running"}, "rate_mvox_s", "eta_s", "reason"}``. While the run goes on, the rate is that of
        recently finished blocks, and afterwards that of its latest start: voxels in millions per
        second of wall time. ``eta_s`` is None before the first block, and while nothing runs.

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
    return status_of(store, run, store.now())


def status_of(store: RunStore, run: dict, now: datetime) -> dict:
    """Return `run_status` of a run whose document was already read, at the server's time `now`."""
    state = state_of(run, now)
    counts, running = counts_of(store, run), store.running() if state == "running" else 0
    rate = _recent_rate(store, run, now) if state == "running" else _last_rate(store, run)
    left = run["n_blocks"] - counts["masked"] - counts[DONE] - counts[QUARANTINED]
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
            "quarantined": counts[QUARANTINED], "masked": counts["masked"], "running": running,
        },
        "rate_mvox_s": round(rate, 4),
        "eta_s": None if eta is None else round(eta, 1),
        "reason": None if state in ("running", DONE) else (run.get("summary") or {}).get("reason"),
    }


def state_of(run: dict, now: datetime) -> str:
    """Return the run's state; ``stopped`` if its scheduler died without recording it."""
    if run["state"] != "running":
        return run["state"]
    age = (now - run["lease"]["heartbeat"]).total_seconds()
    alive = age < LEASE_TIMEOUT_S and owner_lives(run["lease"]["owner"])
    return "running" if alive else "stopped"


def _recent_rate(store: RunStore, run: dict, now: datetime) -> float:
    """Return Mvoxel/s of recently finished blocks; a rate since the start would hide changes."""
    started: datetime | None = run.get("session", {}).get("started")
    if started is None:
        return 0.0
    blocks = latest_done(store, started, MOST_RECENT)
    begin = started
    if len(blocks) > RECENT_BLOCKS:
        begin = max(started, min(now - timedelta(seconds=RECENT_S), blocks[RECENT_BLOCKS][0]))
    if len(blocks) == MOST_RECENT:
        begin = max(begin, blocks[-1][0])
    voxels = sum(voxels for finished, voxels in blocks if finished > begin)
    return voxels / 1e6 / max(1e-3, (now - begin).total_seconds())


def _last_rate(store: RunStore, run: dict) -> float:
    """Return Mvoxel/s of the latest start of a run that has ended."""
    session, summary = run.get("session", {}), run.get("summary") or {}
    if session.get("ended") is not None and "mvox_s" in summary:
        return summary["mvox_s"]
    started, ended = session.get("started"), session.get("ended") or run["lease"]["heartbeat"]
    if started is None or ended is None:
        return 0.0
    return store.voxels_done_since(started) / 1e6 / max(1e-3, (ended - started).total_seconds())

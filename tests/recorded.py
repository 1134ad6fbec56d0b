"""Shared helper: runs whose records were made up, for what only looks at records."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from blockwise import AddOne
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore, block_fields, grid_document
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.runtime.dashboard.server import open_dashboard
from em_blocks.runtime.monitoring.overview import StepView

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
BLOCK = (10, 100, 100)
EVIL = "<img src=x onerror=\"document.title='hacked'\"> {{7*7}} & so on"
TRACEBACK = 'Traceback (most recent call last):\n  File "worker.py", line 7\nValueError: <b>no</b>'
REPLAY = "em-blocks replay c.json {block} --step "
STEPS = {name: StepView(name, REPLAY + name) for name in ("edges", "lut")}


@contextmanager
def stores(home: Path, *runs: str):
    """Stores of `runs` in the embedded database of a run folder."""
    with database_uri(None, home) as uri, connect(uri) as client:
        yield [RunStore(client, "em_blocks", run) for run in runs]


class Recorded:
    """A run that claims to be at work on a grid of `shape` blocks (z, y, x)."""

    def __init__(self, store: RunStore, shape=(3, 4, 5), n_masked=0, minutes=10):
        self.store = store
        volume = tuple(n * b for n, b in zip(shape, BLOCK, strict=True))
        self.grid = BlockGrid(FRAME, volume, BLOCK)
        store.prepare()
        store.create(
            {"task": "add_one", "grid": grid_document(self.grid), "n_blocks": self.grid.n_blocks,
             "n_masked": n_masked}, epoch=0,
        )
        # A scheduler of another host is alive as long as its heartbeat is fresh: during the test.
        store.take_lease("elsewhere:1:1.00")
        self.start = store.now() - timedelta(minutes=minutes)
        store.update(session={"started": self.start}, **{"lease.heartbeat": self.ago(-3600)})

    def ago(self, seconds: float):
        return self.store.now() - timedelta(seconds=seconds)

    def done(self, key: str, *, ago: float = 1.0, seconds: float = 2.0, **values) -> None:
        self._record(key, state="done", attempts=1, finished=self.ago(ago),
                     started=self.ago(ago + seconds), seconds={"read": 0.5, "compute": seconds - 0.5},
                     counts={"odd": 3}, failures=0, error=None, **values)

    def first_done(self, n: int, **values) -> None:
        """The first `n` blocks of the grid."""
        for block in itertools.islice(self.grid.blocks(), n):
            self.done(block.key, **values)

    def failed(self, key: str, *, state="quarantined", tries=3, kind="ValueError", message=EVIL) -> None:
        error = {"type": kind, "message": message, "traceback": TRACEBACK, "stage": "compute"}
        self._record(key, state=state, attempts=tries, failures=tries, finished=self.ago(1), error=error)
        for n in range(tries):
            self.store.attempts.insert_one({
                "_id": f"{self.store.run}/{key}/{n}", "run": self.store.run, "block": key, "epoch": 1,
                "worker": "w0", "host": f"node{n}", "device": "cpu", "started": self.ago(tries - n + 1),
                "finished": self.ago(tries - n), "error": error,
            })

    def worker(self, name: str, **values) -> None:
        now = self.store.now()
        document = {
            "run": self.store.run, "worker": name, "epoch": 1, "host": "node1", "pid": 7,
            "device": "cuda:0", "slot": "0", "state": "working", "reason": None, "left": None,
            "joined": now - timedelta(seconds=100), "heartbeat": now, "blocks": [], "done": 50,
            "failed": 0, **values,
        }
        self.store.workers.replace_one({"_id": f"{self.store.run}/{name}"}, document, upsert=True)

    def end(self, state: str, **summary) -> None:
        self.store.update(**{"session.ended": self.store.now()})
        self.store.release(1, state=state, summary=summary)

    def _record(self, key: str, **values) -> None:
        block = self.grid.block(tuple(map(int, key.split("/"))))
        document = {**block_fields(self.store.run, self.grid, block), "epoch": 1, "worker": "w0",
                    "host": "node1", "device": "cuda:0", **values}
        self.store.blocks.replace_one({"_id": f"{self.store.run}/{key}"}, document, upsert=True)


def step_tasks(home: Path) -> dict[StepView, AddOne]:
    """The tasks of two steps; their volumes need not exist."""
    values = {"block_shape": (10, 10, 10), "raw": "never", "output": str(home / "out.zarr")}
    return {step: AddOne.from_dict({"run": f"seg.{name}", **values}) for name, step in STEPS.items()}


@contextmanager
def served(home: Path):
    """A page that is served meanwhile."""
    with open_dashboard(step_tasks(home), title="seg", host="127.0.0.1", port=0) as dashboard:
        thread = threading.Thread(target=dashboard.serve)
        thread.start()
        try:
            yield dashboard
        finally:
            dashboard.stop()
            thread.join(20)

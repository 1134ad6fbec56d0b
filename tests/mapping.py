"""Shared helper: small volumes of supervoxels, look-up tables, and synapses in a database."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.db.synapses import SynapseStore
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, fingerprint
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (9, 22, 25)
PIECE = (5, 12, 13)
"""Voxels of a block of fragments: no fragment crosses its border."""
RUN = "detected"
RADIUS = 22.0


def make_supervoxels(folder: Path, name="fragments", seed=0) -> Volume:
    """Boxes of 2 x 3 x 4 voxels, cut by the blocks of fragments; two in three are background."""
    rng = np.random.default_rng(seed)
    values = np.zeros(SHAPE, np.uint64)
    first = 1
    for block in BlockGrid(FRAME, SHAPE, PIECE).blocks():
        shape = block.write_box.shape
        coarse = rng.permutation(np.arange(first, first + 3 * 4 * 4)).reshape(3, 4, 4)
        coarse[rng.random(coarse.shape) < 0.65] = 0
        fine = coarse.repeat(2, 0).repeat(3, 1).repeat(4, 2)
        values[block.write_box.slices] = fine[tuple(map(slice, shape))]
        first += 2**40
    volume = Volume.create(
        str(folder / "v.zarr" / name), shape=SHAPE, dtype="uint64", frame=FRAME, chunk_shape=(4, 6, 5)
    )
    volume.write(volume.box, values)
    return volume


def make_lut(volume: Volume, folder: Path, name="lut", segment=lambda ids: ids // 7 + 1,
             fingerprint="lut") -> str:
    """Look-up tables of a volume, in pieces of 1 x 2 x 1 blocks of fragments."""
    grid = BlockGrid(volume.frame, volume.shape, (PIECE[0], 2 * PIECE[1], PIECE[2]))
    path = str(folder / name)
    TableOutput("lut", path, attributes={"fragments": None}).create(grid, fingerprint)
    for piece in grid.blocks():
        ids = np.unique(volume.read(piece.write_box)).astype(np.int64)
        ids = ids[ids > 0]
        BlockTables(path).write(piece.key, {"fragment": ids, "segment": segment(ids)})
    return path


def make_synapses(n=60, seed=0) -> Synapses:
    """Random sites, and some on faces, edges and corners of voxels and blocks."""
    rng = np.random.default_rng(seed)
    voxels = rng.uniform(0, SHAPE, (2, n, 3))
    special = np.array([(z, y, x) for z in (0, 5, 8) for y in (0, 12, 21) for x in (0, 13, 24)])
    voxels[0, : len(special)], voxels[1, -len(special):] = special, special[::-1] + 0.5
    pre, post = FRAME.offset + voxels * FRAME.voxel_size
    return Synapses(id=rng.permutation(n) * 2**50, pre=pre, post=post, score=rng.random(n))


class Database:
    """One database of a server, with the synapses of one run."""

    def __init__(self, uri: str):
        self.uri, self.name = uri, f"t{time.monotonic_ns()}"

    def settings(self) -> dict:
        return {"db_host": self.uri, "db_name": self.name}

    def store(self, client, run=RUN) -> SynapseStore:
        return SynapseStore(client, self.name, run)

    def fill(self, synapses: Synapses, run=RUN, state="done") -> None:
        """As if a run had detected them, a third of them in each of three blocks."""
        with connect(self.uri) as client:
            runs = RunStore(client, self.name, run)
            if runs.load() is None:
                runs.create({"task": "extract_synapses", "config": {}, "identity": {}}, epoch=0)
            runs.update(state=state)
            rows = self.store(client, run)
            rows.prepare()
            for n in range(3):
                rows.replace_block(f"0/0/{n}", synapses.select(np.arange(len(synapses)) % 3 == n))

    def context(self, client, run) -> RunContext:
        return RunContext(store=RunStore(client, self.name, run))

    def rows(self, run=RUN) -> Synapses:
        with connect(self.uri) as client:
            return self.store(client, run).read()

    def documents(self, run=RUN) -> dict[int, dict]:
        with connect(self.uri) as client:
            return {d["_id"]: d for d in self.store(client, run).collection.find({"run": run})}


# A test module that wants these fixtures gives them names of its own:
# `uri, database = mapping.uri, mapping.database`.


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A server for the tests of one module."""
    with database_uri(None, tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture
def database(uri):
    """An empty database for one test."""
    database = Database(uri)
    yield database
    with connect(uri) as client:
        client.drop_database(database.name)


def mapping_settings(volume: Volume, folder: Path, database: Database, **options) -> dict:
    """Keys of a config that maps the detected synapses; an option of None leaves its key out."""
    values = {
        "kind": "map_synapses", "run": "mapped", "run_dir": str(folder), "synapses": RUN,
        "labels": volume.path, "search_radius_nm": RADIUS, "block_shape": list(PIECE),
        **database.settings(), **options,
    }
    return {key: value for key, value in values.items() if value is not None}


def here(task, database: Database, blocks=None) -> dict[str, int]:
    """All blocks of a step in this process; what they counted."""
    counts: dict[str, int] = {}
    grid = task.grid()
    for spec in task.output_specs():
        spec.create(grid, fingerprint(task.identity()))
    with connect(database.uri) as client:
        context = database.context(client, task.run)
        with task.open(context) as process:
            for block in grid.blocks() if blocks is None else blocks:
                report = BlockReport()
                process(block, report)
                for name, n in report.counts.items():
                    counts[name] = counts.get(name, 0) + n
    return counts


def assert_same_rows(a: Synapses, b: Synapses) -> None:
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)

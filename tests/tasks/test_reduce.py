"""Tasks that join the tables of a finer grid: which parts they read, and where probes write."""

from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
import pytest

from em_blocks.config import Shape3, StorePath
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.reduce import Reduce, joined, read_tables
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

FRAME, SHAPE, PART = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2)), (13, 20, 31), (5, 7, 9)


class JoinRows(Reduce):
    """All rows of the parts of a block."""

    written: ClassVar[frozenset[str]] = frozenset({"output", "notes"})

    kind: Literal["join_rows"] = "join_rows"
    tables: StorePath
    output: StorePath
    notes: StorePath | None = None
    block_shape: Shape3 = SHAPE

    def extent(self):
        return FRAME, SHAPE

    def shape_of_parts(self):
        return PART

    def grid(self):
        return super().grid() if self.block_shape == SHAPE else BlockGrid(FRAME, SHAPE, self.block_shape)

    def inputs(self):
        return {}

    def output_specs(self):
        return [TableOutput("rows", self.output)]

    def outputs_root(self):
        return self.output

    @contextmanager
    def open(self, context: RunContext):
        output = BlockTables(self.output)

        def process(block, report):
            found = read_tables(self.tables, self.parts(block))
            report.write_table("rows", output, block, joined(found, ["number"]))

        yield process


@pytest.fixture
def task(tmp_path):
    """Every part has a table of one row, its number; those of the parts in the mask are missing."""
    mask = Volume.create(
        str(tmp_path / "mask.zarr/m"), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=SHAPE
    )
    values = np.ones(SHAPE, np.uint8)
    values[:5, :7, 9:27] = 0
    mask.write(mask.box, values)
    tables = BlockTables(str(tmp_path / "parts"))
    for number, block in enumerate(BlockGrid(FRAME, SHAPE, PART).blocks()):
        if block.key not in ("0/0/1", "0/0/2"):
            tables.write(block.key, {"number": np.array([number])})
    return JoinRows(tables=str(tmp_path / "parts"), output=str(tmp_path / "rows"), mask=mask.path)


def rows_of(task):
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    found = read_tables(task.output, [block.key for block in task.grid().blocks()])
    return joined(found, ["number"])["number"]


def test_one_block_reads_every_part_that_the_mask_leaves_in_their_order(task):
    assert task.grid().n_blocks == 1
    expected = [n for n in range(3 * 3 * 4) if n not in (1, 2)]
    assert rows_of(task).tolist() == expected


def test_super_blocks_share_the_parts_out(task):
    super_blocks = task.model_copy(update={"block_shape": (10, 14, 18)})
    assert super_blocks.grid().n_blocks == 8
    assert sorted(rows_of(super_blocks).tolist()) == [n for n in range(36) if n not in (1, 2)]


def test_a_probe_writes_every_output_below_its_folder_and_nothing_else_moves(task, tmp_path):
    moved = task.relocated(tmp_path / "scratch")
    assert moved.output == str(tmp_path / "scratch/output") and moved.notes is None
    assert moved.home == tmp_path / "scratch" and moved.tables == task.tables

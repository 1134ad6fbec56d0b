"""What outputs say of their own blocks."""

import json

import numpy as np
import pytest

from em_blocks.errors import IncompleteInputError, VolumeError
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.volumes.stores.ledger import (
    LEDGER,
    Ledger,
    read_ledger,
    require_complete,
    write_ledger,
)

GRID = BlockGrid(Frame((40, 4.5, 4), (80, 9, -12)), (20, 33, 50), (8, 16, 16))  # 3 x 3 x 4 blocks


def ledger(missing=(), masked=(), state="closed") -> Ledger:
    generation, mask = np.full(GRID.shape, 3, np.uint32), np.zeros(GRID.shape, bool)
    generation[1, 0, 2] = 70_000
    for index in missing:
        generation[index] = 0
    for index in masked:
        generation[index], mask[index] = 0, True
    return Ledger("brain", "ab12", "predict", "f" * 64, "c" * 64, GRID, state, generation, mask,
                  "em-blocks predict p.json")


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    written = ledger(missing=[(0, 1, 1)], masked=[(2, 2, 3)])
    write_ledger(str(tmp_path), written)
    found = read_ledger(str(tmp_path))
    assert np.array_equal(found.generation, written.generation)
    assert np.array_equal(found.masked, written.masked)
    assert found.grid == GRID
    assert (found.run, found.run_id, found.task, found.state) == ("brain", "ab12", "predict", "closed")
    assert (found.fingerprint, found.content_id) == ("f" * 64, "c" * 64)


def test_masked_blocks_are_not_missing():
    found = ledger(missing=[(0, 1, 1)], masked=[(2, 2, 3)])
    assert np.argwhere(found.missing).tolist() == [[0, 1, 1]]
    assert not found.complete
    assert ledger(masked=[(2, 2, 3)]).complete


def test_a_foreign_folder_has_no_ledger(tmp_path):
    assert read_ledger(str(tmp_path)) is None
    require_complete(str(tmp_path))


def test_an_incomplete_input_is_refused_with_run_blocks_and_command(tmp_path):
    write_ledger(str(tmp_path), ledger(missing=[(0, 1, 1), (2, 0, 0)]))
    with pytest.raises(IncompleteInputError) as caught:
        require_complete(str(tmp_path), name="affinities")
    text = str(caught.value)
    assert "'brain'" in text and "2 of 36 blocks (0/1/1, 2/0/0)" in text
    assert "`em-blocks predict p.json`" in text and str(tmp_path) in text
    assert caught.value.exit_code == 3


def test_a_run_that_has_not_ended_is_refused_although_all_blocks_are_stored(tmp_path):
    write_ledger(str(tmp_path), ledger(state="open"))
    with pytest.raises(IncompleteInputError, match="not closed"):
        require_complete(str(tmp_path))
    write_ledger(str(tmp_path), ledger())
    require_complete(str(tmp_path))


@pytest.mark.parametrize("damage", [
    {"generation": "AAAA"}, {"grid": {}}, {"masked": 7}, {"run": None, "generation": None},
])
def test_a_damaged_ledger_is_an_error_and_not_a_guess(tmp_path, damage):
    write_ledger(str(tmp_path), ledger())
    values = json.loads((tmp_path / LEDGER).read_text())
    (tmp_path / LEDGER).write_text(json.dumps({**values, **damage}))
    with pytest.raises(VolumeError, match=LEDGER):
        read_ledger(str(tmp_path))


def test_a_million_blocks_take_little_space_and_are_exact(tmp_path):
    grid = BlockGrid(Frame((8, 8, 8)), (100, 100, 100), (1, 1, 1))
    generation = np.ones(grid.shape, np.uint32)
    generation[::7, 3] = 9
    big = ledger().replaced(grid=grid, generation=generation, masked=np.zeros(grid.shape, bool))
    write_ledger(str(tmp_path), big)
    assert (tmp_path / LEDGER).stat().st_size < 200_000
    assert np.array_equal(read_ledger(str(tmp_path)).generation, generation)

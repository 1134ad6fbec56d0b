"""What a user who waits is shown."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from dispatching import work
from em_blocks.runtime.scheduler import progress_bars
from em_blocks.runtime.scheduler.dispatch import StepProgress
from em_blocks.runtime.scheduler.progress_bars import ProgressBars
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep


class Store:
    run = "sum"


@pytest.fixture
def shown(monkeypatch):
    """Progress of a step of 8 blocks with 4 million voxels, 10 s after its start."""
    clock = [1000.0]
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: clock[0])
    said = io.StringIO()
    step = ScheduledStep(replace(work((1, 1, 8)), n_voxels=4_000_000), Store(), None, "", 1)

    def show(done, failed=0, *, after_s=20.0, terminal=False, live=True):
        progress = [StepProgress(done=done, failed=failed)]
        console = Console(file=said, width=200, force_terminal=terminal)
        clock[0] = 1000.0
        bars = ProgressBars([step], progress, console, live=live)
        with bars:
            clock[0] += after_s
            bars.show()
            bars.show()
        return said.getvalue()

    return show


def test_without_a_terminal_a_line_is_printed_now_and_then(shown):
    assert shown(2, 1) == "sum: 2 of 8 blocks, 0.05 Mvoxel/s, 1 failed, about 60 s left\n"


@pytest.mark.parametrize(("done", "after_s"), [(0, 20.0), (8, 20.0), (2, 15.0)])
def test_no_line_is_due_before_the_first_block_after_the_last_or_too_soon(shown, done, after_s):
    assert shown(done, after_s=after_s) == ""


def test_a_terminal_has_bars_unless_they_would_disturb(shown):
    assert "2/8" in shown(2, after_s=1.0, terminal=True)


def test_beside_a_debugger_a_terminal_has_lines(shown):
    text = shown(2, terminal=True, live=False)
    assert "2/8" not in text and "blocks" in text and text.count("\n") == 1



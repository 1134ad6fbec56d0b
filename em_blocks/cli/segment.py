"""``em-blocks segment CONFIG``."""

from __future__ import annotations

import functools
import json

import click

from em_blocks.cli.steps import steps_command
from em_blocks.tasks.segmentation.segment import Segment


def _with_thresholds(command: click.Command) -> click.Command:
    """Add ``--threshold``, which stands for the key `thresholds` of the config."""
    callback = command.callback

    @functools.wraps(callback)
    def with_thresholds(overrides: tuple[str, ...], threshold: tuple[float, ...], **values):
        if threshold:
            overrides += (f"thresholds={json.dumps(sorted(threshold))}",)
        return callback(overrides=overrides, **values)

    command.callback = with_thresholds
    command.params.insert(1, click.Option(
        ["--threshold"], type=float, multiple=True,
        help="Segments at this threshold instead of those of CONFIG; only look-up table and volume "
        "are made. May be repeated.",
    ))
    return command


main = _with_thresholds(steps_command(
    Segment,
    "segment",
    """Segment the affinities in CONFIG (JSON): fragments, region graph, merge forest, segments.

    Every step is a run of its own (RUN.fragments, RUN.edges, ...), of which done blocks are
    skipped: a stopped command is simply repeated.
    """,
))

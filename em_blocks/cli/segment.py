"""``em-blocks segment CONFIG``."""

from __future__ import annotations

import json

import click

from em_blocks.cli.steps import ExtraOption, steps_command
from em_blocks.tasks.segmentation.segment import Segment

_THRESHOLD = ExtraOption(
    click.Option(
        ["--threshold"], type=float, multiple=True,
        help="Segments at this threshold instead of those of CONFIG; only look-up table and volume "
        "are made. May be repeated.",
    ),
    override=lambda values: f"thresholds={json.dumps(sorted(values))}",
)

main = steps_command(
    Segment,
    "segment",
    """Segment the affinities in CONFIG (JSON): fragments, region graph, merge forest, segments.

    Every step is a run of its own (RUN.fragments, RUN.edges, ...), of which done blocks are
    skipped: a stopped command is simply repeated.
    """,
    extra_options=[_THRESHOLD],
)

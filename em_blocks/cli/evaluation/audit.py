"""``em-blocks audit CONFIG``: what cutting into blocks costs a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from PIL import Image
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import (
    config_argument,
    json_option,
    opened_store,
    set_option,
    shows_errors,
)
from em_blocks.cli.evaluation.common import with_progress
from em_blocks.config import path_of
from em_blocks.db.runs import RunStore
from em_blocks.errors import ConfigError
from em_blocks.evaluation.seam_audit import (
    Rate,
    Sample,
    SeamAuditor,
    position_nm,
    rates,
    report,
    seam_picture,
    worst,
)
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.seams import Estimate
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.runs.claim import changed_settings
from em_blocks.runtime.runs.inputs import require_unchanged
from em_blocks.runtime.runs.preflight import check_writable
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes.stores.ledger import require_complete

_SHOWN_SEAMS = 5
_ROWS = {
    "disagreement": ("disagreement", 100, "%"),
    "split_by_the_seam": ("split, of those of one object", 100, "%"),
    "merged_by_the_seam": ("merged, of the others", 100, "%"),
    "voi_split": ("VOI split of a window", 1, "bits"),
    "voi_merge": ("VOI merge of a window", 1, "bits"),
}


@click.command(name="audit")
@config_argument
@set_option
@click.option("--samples", type=click.IntRange(min=1), default=20, show_default=True,
              help="Seams that are looked at, drawn at random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Another seed draws other seams.")
@click.option("--threshold", type=click.FloatRange(0, 1),
              help="Which segments; needed where CONFIG has several.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png",
              help="Draw the worst seam: as it is stored, and without the seam.")
@click.option("--raw", metavar="VOLUME", help="With --picture: the raw volume, uint8, behind it.")
@json_option
@shows_errors
def main(
    config: Path, overrides: tuple[str, ...], samples: int, seed: int, threshold: float | None,
    picture: Path | None, raw: str | None, as_json: bool,
) -> None:
    """Measure what cutting into tiles costs the segments of CONFIG, at random seams.

    At every seam a window is segmented as if it had none, and compared with what is stored. The
    same in the middle of a tile, where nothing was cut, is the control; their difference is what
    cutting costs. Nothing is changed.
    """
    task = _one_threshold(config, overrides, threshold)
    _check_done(task)
    if picture is not None:
        check_writable(picture.parent)
    auditor = SeamAuditor(task, task.thresholds[0])
    found = list(
        with_progress(auditor.samples(samples, seed=seed), samples, "Segmenting windows")
    )
    if not found:
        raise ConfigError(
            f"Nothing is segmented around any of the seams of {auditor.stored.path} that were looked "
            "at: there is nothing to audit. Draw others with --seed, or look at the segments."
        )
    click.echo(json_text(report(auditor, found), indent=2)) if as_json else _show(auditor, found)
    if picture is not None:
        seams = worst(found) or found
        Image.fromarray(seam_picture(auditor, seams[0].seam, raw)).save(picture)
        click.echo(f"Picture: {picture}", err=as_json)


def _one_threshold(config: Path, overrides: tuple[str, ...], threshold: float | None) -> Segment:
    """Return the config with one threshold, as `em-blocks segment --threshold` runs it."""
    if threshold is not None:
        overrides += (f"thresholds=[{threshold}]",)
    task = Segment.from_file(config, overrides)
    if len(task.thresholds) > 1:
        raise ConfigError(
            f"{config} has the thresholds {', '.join(map(str, task.thresholds))}, each with segments of "
            "its own. Name one of them: --threshold."
        )
    return task


def _check_done(task: Segment) -> None:
    """Raise `ConfigError` unless all steps are done with these settings."""
    require_complete(path_of(task.affinities), name="affinities")
    steps = task.steps()
    with opened_store(steps[0]) as first:
        for step in steps:
            store = RunStore(first.client, step.db_name, step.run)
            status = run_status(store)
            blocks = status["blocks"]
            left = blocks["total"] - blocks["masked"] - blocks["done"]
            if left:
                raise ConfigError(
                    f"Run {step.run!r} is {status['state']}: {left} of {blocks['total']} blocks are not "
                    "done. An unfinished run cannot be audited: a missing block would be mistaken for "
                    "a seam. Run `em-blocks segment` on this config again first, with --retry for "
                    f"quarantined blocks (here {blocks['quarantined']})."
                )
            _check_settings(step, store.load())
            require_unchanged(step, store)


def _check_settings(step: BlockwiseTask, run: dict) -> None:
    changed = list(changed_settings(step, run["identity"], step.identity()))
    if changed:
        lines = [f"{path}: {before!r} -> {now!r}" for path, before, now in changed]
        raise ConfigError(
            f"Run {step.run!r} was made with other settings than this config: {'; '.join(lines)}. Their "
            "effect would be mistaken for the cost of cutting; use the config of the run."
        )


def _show(auditor: SeamAuditor, samples: Sequence[Sample]) -> None:
    console = Console()
    console.print(_rates_table(auditor, samples))
    console.print(
        "+- is a standard error between windows. Pairs are voxels that touch across the seam, or "
        "across the middle of a tile; the segmentation without the seam stands for the truth.",
        markup=False,
    )
    if found := worst(samples):
        console.print(_worst_table(auditor, found[:_SHOWN_SEAMS]))


def _rates_table(auditor: SeamAuditor, samples: Sequence[Sample]) -> Table:
    table = Table(title=f"{auditor.stored.path}: {len(samples)} seams", title_justify="left")
    table.add_column("")
    for name in ("seam", "control", "cost of cutting"):
        table.add_column(name, justify="right")
    for label, count in (
        ("pairs across the plane", lambda c: c.pairs), ("of one object", lambda c: c.joined),
        ("split", lambda c: c.split), ("merged", lambda c: c.merged),
    ):
        sums = (sum(map(count, found)) for found in (
            [s.at_seam for s in samples], [s.at_control for s in samples]
        ))
        table.add_row(label, *(f"{n:,}" for n in sums), "")
    found = rates(samples)
    for name, (label, factor, unit) in _ROWS.items():
        rate: Rate = found[name]
        table.add_row(
            f"{label} ({unit})", *(_figure(e, factor) for e in (rate.seam, rate.control, rate.cost))
        )
    return table


def _figure(estimate: Estimate, factor: float) -> str:
    return f"{factor * estimate.value:.3f} +- {factor * estimate.error:.3f}"


def _worst_table(auditor: SeamAuditor, samples: Sequence[Sample]) -> Table:
    table = Table(title="Worst seams")
    table.add_column("position (nm, zyx)")
    for name in ("across", "pairs", "split", "merged", "VOI split", "VOI merge"):
        table.add_column(name, justify="right")
    for sample in samples:
        found = sample.at_seam
        table.add_row(
            ", ".join(f"{p:.10g}" for p in position_nm(auditor, sample.seam)),
            "zyx"[sample.seam.axis], f"{found.pairs:,}", f"{found.split:,}", f"{found.merged:,}",
            f"{found.voi.split:.3f}", f"{found.voi.merge:.3f}",
        )
    return table

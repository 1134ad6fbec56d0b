"""``em-blocks``: one verb per job, and the verbs that work on any run."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from em_blocks import __version__
from em_blocks.errors import ConfigError
from em_blocks.extras import needed_extras
from em_blocks.tasks import TASKS

# The module of each verb and what it does; without a module, it is the command of the kind of task.
VERBS: dict[str, tuple[str | None, str]] = {
    "ingest": (None, "Turn images or HDF5 into a chunked volume."),
    "equalize": (None, "Equalize the contrast of an image, without seams."),
    "tissue-mask": (None, "Mark where a volume holds tissue."),
    "metric-mask": (None, "Leave surfaces of objects out of scores."),
    "convert": (None, "Crop, pad, invert, relabel a volume, or change its type."),
    "check-data": ("em_blocks.cli.data.check", "Look at the data of a training before it starts."),
    "new": ("em_blocks.cli.data.organelle", "Write a setup for your data, every choice explained."),
    "train": ("em_blocks.pipelines.train", "Train the network of a setup."),
    "predict": ("em_blocks.cli.predict", "Apply a trained network to a volume."),
    "model": ("em_blocks.cli.models.model", "Export, import and test a trained network."),
    "segment": ("em_blocks.pipelines.segment_blockwise", "Segment a volume of affinities."),
    "extract-synapses": (None, "Find synaptic partners in predictions."),
    "threshold": (None, "Turn probabilities into a volume of classes."),
    "objects": (None, "Find the objects of predicted classes, fill their holes, list them."),
    "features": (
        "em_blocks.pipelines.compute_features_blockwise",
        "Measure the objects of a volume: size, shape, surface, grey values."
    ),
    "segment-instances": (None, "Make one label per object of predicted maps, flooded from seeds."),
    "cluster-embeddings": (None, "Label the objects of embeddings, every block for itself."),
    "search-instances": (
        "em_blocks.cli.evaluation.search_instances", "Search thresholds of segment-instances."
    ),
    "cluster": (
        "em_blocks.cli.objects.cluster", "Find clusters of similar objects in tables of features."
    ),
    "classify": (
        "em_blocks.cli.objects.classify", "Tell the classes of objects from some examples."
    ),
    "clean": (None, "Split disconnected labels and remove small components."),
    "link-slabs": (None, "Link the labels of slabs that were segmented each for itself."),
    "downsample": (None, "Make a pyramid of coarser levels."),
    "map-synapses": (
        "em_blocks.pipelines.map_synapses_blockwise", "Find the segments of synaptic partners."
    ),
    "cluster-clefts": (None, "Find synapses that face the same cleft."),
    "evaluate": ("em_blocks.pipelines.evaluate", "Score results against truth."),
    "export": ("em_blocks.pipelines.export", "Write volumes, synapses, connectomes for other programs."),
    "audit": ("em_blocks.cli.evaluation.audit", "Measure the errors at block borders."),
    "generate": ("em_blocks.cli.generate", "Make an EM-like volume with synapses, and its truth."),
    "demo": ("em_blocks.pipelines.demo", "Make a small volume, predict and segment it, draw it."),
    "view": ("em_blocks.cli.viewing.main", "Show volumes, synapses and runs in neuroglancer."),
    "plan": ("em_blocks.cli.runs.plan", "Estimate blocks, bytes, memory and time of a run."),
    "status": ("em_blocks.cli.runs.status", "Show the progress of a run, from the database."),
    "dashboard": ("em_blocks.cli.runs.dashboard", "Show a run as a web page: map, failures, workers."),
    "join": ("em_blocks.cli.runs.join", "Start an additional worker of a run, on any host."),
    "retry": ("em_blocks.cli.runs.retry", "Run again, quarantined blocks included."),
    "replay": ("em_blocks.cli.runs.replay", "Compute one block in this process, changing nothing."),
    "verify": ("em_blocks.cli.runs.verify", "Compare stored outputs with the database."),
    "forget": ("em_blocks.cli.runs.forget", "Remove a run, its rows and its outputs permanently."),
    "runs": ("em_blocks.cli.trainings.main", "Show recorded trainings: list, compare, draw, export."),
    "db": ("em_blocks.cli.runs.database", "Start, stop or find the embedded database of a run."),
}


_WIDTH_OF_FILES = 200


class _Verbs(click.Group):
    """Imports a verb when it is used: `em-blocks status` needs no torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *_foreign_verbs()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module, _ = VERBS.get(name, (None, ""))
        if module is not None:
            return importlib.import_module(module).main
        kinds = {kind.replace("_", "-"): kind for kind in TASKS.names()}
        if name not in kinds:
            return None
        from em_blocks.cli.steps import kind_command

        return kind_command(kinds[name])

    def invoke(self, ctx: click.Context) -> Any:
        if not sys.stdout.isatty():  # a file, a pipe: a table of 80 columns would break its words
            os.environ.setdefault("COLUMNS", str(_WIDTH_OF_FILES))
        try:
            with needed_extras():
                return super().invoke(ctx)
        except ConfigError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            own = {name: help for name, (_, help) in VERBS.items()}
            formatter.write_dl([*own.items(), *_foreign_verbs().items()])


def _foreign_verbs() -> dict[str, str]:
    """Verbs of the tasks of other packages, with their help; imports none of them."""
    verbs = {
        kind.replace("_", "-"): f"Run a task of the package {TASKS.origin(kind)}."
        for kind in TASKS.names() if kind not in TASKS.builtin
    }
    return {verb: help for verb, help in verbs.items() if verb not in VERBS}


@click.command(cls=_Verbs)
@click.version_option(__version__, prog_name="em-blocks")
def main() -> None:
    """Blockwise electron-microscopy connectomics."""

"""``em-blocks``: one verb per job, and the verbs that work on any run."""

from __future__ import annotations

import importlib

import click

from em_blocks import __version__

VERBS = {
    "ingest": ("em_blocks.pipelines.ingest", "Turn images or HDF5 into a chunked volume."),
    "train": ("em_blocks.pipelines.train", "Train the network of a setup."),
    "predict": ("em_blocks.pipelines.predict_blockwise", "Apply a trained network to a volume."),
    "segment": ("em_blocks.pipelines.segment_blockwise", "Segment a volume of affinities."),
    "extract-synapses": (
        "em_blocks.pipelines.extract_synapses_blockwise", "Find synaptic partners in predictions."
    ),
    "clean": ("em_blocks.pipelines.clean", "Make every id one connected object, erase crumbs."),
    "downsample": ("em_blocks.pipelines.downsample", "Make a pyramid of coarser levels."),
    "map-synapses": (
        "em_blocks.pipelines.map_synapses_blockwise", "Supervoxels and segments of synaptic partners."
    ),
    "cluster-clefts": (
        "em_blocks.pipelines.cluster_clefts_blockwise", "Which synapses face one predicted cleft."
    ),
    "evaluate": ("em_blocks.pipelines.evaluate", "Score results against truth."),
    "export": ("em_blocks.pipelines.export", "Synapses and connectomes for other programs."),
    "audit": ("em_blocks.cli.evaluation.audit", "What cutting into blocks costs a segmentation."),
    "generate": ("em_blocks.cli.generate", "Make an EM-like volume with synapses, and its truth."),
    "demo": ("em_blocks.pipelines.demo", "Make a small volume, predict and segment it, draw it."),
    "view": ("em_blocks.cli.view", "Show volumes, synapses and runs in neuroglancer."),
    "plan": ("em_blocks.cli.runs.plan", "Blocks, bytes, memory and time of a run, before it starts."),
    "status": ("em_blocks.cli.runs.status", "How far a run is, from the database."),
    "dashboard": ("em_blocks.cli.runs.dashboard", "Show a run as a web page: map, failures, workers."),
    "join": ("em_blocks.cli.runs.join", "Be one more worker of a run, on any host."),
    "retry": ("em_blocks.cli.runs.retry", "Run again, quarantined blocks included."),
    "replay": ("em_blocks.cli.runs.replay", "Do one block in this process, changing nothing."),
    "verify": ("em_blocks.cli.runs.verify", "Compare stored outputs with the database."),
    "forget": ("em_blocks.cli.runs.forget", "Remove a run, its rows and its outputs for good."),
    "db": ("em_blocks.cli.runs.database", "The embedded database of a run."),
}


class _Verbs(click.Group):
    """Imports a verb when it is used: `em-blocks status` needs no torch."""

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, name):
        if name not in VERBS:
            return None
        return importlib.import_module(VERBS[name][0]).main

    def format_commands(self, ctx, formatter):
        with formatter.section("Verbs"):
            formatter.write_dl([(name, help) for name, (_, help) in VERBS.items()])


@click.command(cls=_Verbs)
@click.version_option(__version__, prog_name="em-blocks")
def main() -> None:
    """Blockwise electron-microscopy connectomics."""

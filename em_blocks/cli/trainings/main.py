"""``em-blocks runs VERB``: one module per verb, imported when it is used."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "list": "List the trainings of the run database, or below a folder.",
    "show": "Show one training: data, scores, checkpoints, curves.",
    "diff": "Show in what trainings differ.",
    "plot": "Draw the curves of trainings over each other.",
    "dashboard": "Show trainings as a web page: curves, pictures, differences.",
    "export": "Write trainings for TensorBoard, MLflow, Sacred or as CSV.",
    "import": "Add trainings from their folders to the run database.",
    "forget": "Remove trainings from the run database; their files stay.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        return importlib.import_module(f"em_blocks.cli.trainings.{name}_runs").main

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([*VERBS.items()])


@click.group(name="runs", cls=_Verbs)
def main() -> None:
    """Recorded trainings: compare, draw, export, repeat."""

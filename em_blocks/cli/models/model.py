"""``em-blocks model``: take a trained network to other people and programs, and theirs to here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.params import ThreePositive
from em_blocks.errors import EXIT_FAILED_BLOCKS, ConfigError
from em_blocks.json_text import json_text

if TYPE_CHECKING:
    from em_blocks.models.setup import Setup

FORMATS = ("folder", "onnx", "bioimageio")


@click.group(name="model")
def main() -> None:
    """Export, import and test a trained network."""


@main.command(name="export")
@click.argument("setup", type=click.Path(path_type=Path), required=False)
@click.option("--run-id", metavar="RUN",
              help="Instead of SETUP: a training by its number in the run database, or its folder, "
              "perhaps with the weights (3:2500).")
@click.option("--db", metavar="ADDRESS", help="Run database of --run-id [default: $EM_BLOCKS_DB].")
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="New folder, or a file that ends in .zip.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="folder", show_default=True,
              help="folder: weights of safetensors, for em_blocks. onnx: the same with the network as "
              "model.onnx, for onnxruntime. bioimageio: a package of bioimage.io, with ONNX.")
@click.option("--checkpoint", metavar="best|latest|ITERATION|FILE", help="Weights [default: best].")
@click.option("--about", type=click.Path(path_type=Path),
              help="JSON with description, authors, license, cite, data and tags (docs/models.md).")
@shows_errors
def export(
    setup: Path | None, run_id: str | None, db: str | None, output: Path, kind: str,
    checkpoint: str | None, about: Path | None,
) -> None:
    """Write the network of SETUP with all that others need: card, scores, lineage, a test input.

    SETUP is a folder of a setup: a shipped one, or the output of a training.
    """
    from em_blocks.export.models.about import About
    from em_blocks.export.models.model import Model

    chosen, weights = _chosen(setup, run_id, db, checkpoint)
    model = Model(chosen, weights, About.from_file(about) if about else About())
    _exporter(kind)(model, output)
    click.echo(f"{output}: {model.config.name}, {_size(output) / 1e6:.3g} MB")
    if kind == "folder" and model.needs_code:
        click.echo("It holds network.py: who imports it has to trust this code (--trust-code).")


def _chosen(
    setup: Path | None, run_id: str | None, db: str | None, checkpoint: str | None
) -> tuple[Setup, Path]:
    """Find the setup and its weights, of a folder or of a training."""
    if (setup is None) == (run_id is None):
        raise ConfigError("Name either the folder of a setup, or a training by --run-id.")
    if run_id is not None:
        from em_blocks.training.records.resolve import resolve_training

        found = resolve_training(db, run_id, checkpoint)
        return found.setup, found.checkpoint
    from em_blocks.models.setup import Setup
    from em_blocks.training.records.resolve import check_weights

    opened = Setup.from_folder(str(setup))
    weights = opened.checkpoint_path(checkpoint or "best")
    check_weights(opened.folder, weights)  # the card tells what they were trained with
    return opened, weights


def _exporter(kind: str):
    if kind == "onnx":
        from em_blocks.export.models.onnx import export_onnx

        return export_onnx
    if kind == "bioimageio":
        from em_blocks.export.models.bioimageio import export_bioimageio

        return export_bioimageio
    from em_blocks.export.models.folder import export_folder

    return export_folder


def _size(output: Path) -> int:
    files = [output] if output.is_file() else output.rglob("*")
    return sum(file.stat().st_size for file in files)


@main.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="New folder of the setup.")
@click.option("--trust-code", is_flag=True,
              help="Run the network.py that the model brings, now and in predictions.")
@click.option("--voxel-size", type=ThreePositive(float), metavar="Z,Y,X",
              help="nm that the network was trained on, where a package of bioimage.io does not say it.")
@shows_errors
def import_(source: Path, output: Path, trust_code: bool, voxel_size) -> None:
    """Make a setup of SOURCE: what `model export` wrote, or a package of bioimage.io; folder or zip.

    Files are checked against their checksums, no weights are unpickled and no code is run. The setup
    is kept if it gives the test output that the model brings.
    """
    from em_blocks.export.models.importing import import_model, said

    imported = import_model(source, output, trust_code=trust_code, voxel_size=voxel_size)
    for remark in imported.remarks:
        click.echo(f"Note: {remark}")
    click.echo(f"{imported.setup}: its test output is reproduced; {said(imported.differences)}.")


@main.command(name="test")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@shows_errors
def test(folder: Path, as_json: bool) -> None:
    """Compare what the model in FOLDER gives here with the test output that it brings.

    Exit code 1 if a head differs by more than 1e-5 (of its largest value, or of 1), in fp32.
    """
    from em_blocks.export.models.importing import check_model, said

    differences = check_model(folder)
    ok = all(difference.ok for difference in differences)
    if as_json:
        heads = {
            d.head: {"largest_difference": d.largest, "accepted": d.accepted} for d in differences
        }
        click.echo(json_text({"ok": ok, "heads": heads}, indent=2))
    else:
        click.echo(f"{folder}: {'the same' if ok else 'other'} values; {said(differences)}.")
    sys.exit(0 if ok else EXIT_FAILED_BLOCKS)

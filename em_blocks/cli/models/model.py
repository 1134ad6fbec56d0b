"""``em-blocks model``: take a trained network to other people and programs, and theirs to here."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.params import ThreePositive
from em_blocks.errors import EXIT_FAILED_BLOCKS
from em_blocks.json_text import json_text

FORMATS = ("folder", "onnx", "bioimageio")


@click.group(name="model")
def main() -> None:
    """Export, import and test a trained network."""


@main.command(name="export")
@click.argument("setup", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="New folder, or a file that ends in .zip.")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="folder", show_default=True,
              help="folder: weights of safetensors, for em_blocks. onnx: the same with the network as "
              "model.onnx, for onnxruntime. bioimageio: a package of bioimage.io, with ONNX.")
@click.option("--checkpoint", default="best", show_default=True,
              help='"best", "latest", an iteration, or a file of weights.')
@click.option("--about", type=click.Path(path_type=Path),
              help="JSON with description, authors, license, cite, data and tags (docs/models.md).")
@shows_errors
def export(setup: Path, output: Path, kind: str, checkpoint: str, about: Path | None) -> None:
    """Write the network of SETUP with all that others need: card, scores, lineage, a test input.

    SETUP is a folder of a setup: a shipped one, or the output of a training.
    """
    from em_blocks.export.models.about import About
    from em_blocks.export.models.model import Model
    from em_blocks.models.setup import Setup

    opened = Setup.from_folder(setup)
    model = Model(
        opened, opened.checkpoint_path(checkpoint), About.from_file(about) if about else About()
    )
    _exporter(kind)(model, output)
    click.echo(f"{output}: {model.config.name}, {_size(output) / 1e6:.3g} MB")
    if kind == "folder" and model.needs_code:
        click.echo("It holds network.py: who imports it has to trust this code (--trust-code).")


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

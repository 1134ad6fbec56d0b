"""``em-blocks export tiff`` and ``export vast``: a volume as a folder of images, one per section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.params import Numbers
from em_blocks.json_text import json_text

if TYPE_CHECKING:
    from em_blocks.export.section_stack import SectionStack
    from em_blocks.geometry import Box

_POSITION = Numbers(float, "z,y,x in nm, for example 1400,0,0", count=3)

_source = click.argument("source", metavar="VOLUME")
_roi = click.option("--roi", nargs=2, type=_POSITION, metavar="OFFSET SHAPE",
                    help="Only this region, nm, each as z,y,x.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace another export in FOLDER.")


def _output(help: str):
    return click.option("--output", required=True, metavar="FOLDER", help=help,
                        type=click.Path(file_okay=False, path_type=Path))


@click.command()
@_source
@_output("One file per section, section_00012.tif, and volume.json.")
@_roi
@click.option("--channel", metavar="NUMBER|CLASS", help="Of the volume, if it has several.")
@click.option("--dtype", "form", type=click.Choice(["stored", "uint8", "float32"]), default="stored",
              show_default=True, help="Probabilities may become 0..255 or 0..1.")
@_overwrite
@json_option
@shows_errors
def tiff(source: str, output: Path, roi: tuple | None, channel: str | None, form: str,
         overwrite: bool, as_json: bool) -> None:
    """Write VOLUME as TIFF files that keep its place: one file per section, any type of values.

    Voxel size and offset (nm, z, y, x) are in the description of every file and in volume.json, so
    that `em-blocks ingest` of the folder needs neither; other programs find the size in its tags.
    Files that are there are not written again: a stopped export is simply repeated.
    """
    from em_blocks.export.tiff_stack import TiffStack

    box = _checked_box(source, output, roi)
    number = int(channel) if (channel or "").isdigit() else channel
    stack = TiffStack.of(source, box=box, channel=number, form=form)
    _write(stack, output, overwrite=overwrite, as_json=as_json, values=str(stack.dtype))


@click.command()
@_source
@_output("One file per section, section_00012.png, and volume.json.")
@_roi
@click.option("--renumber", is_flag=True,
              help="Number the ids 1, 2, ... in their order, and write the table ids.csv (vast, id).")
@_overwrite
@json_option
@shows_errors
def vast(source: str, output: Path, roi: tuple | None, renumber: bool, overwrite: bool,
         as_json: bool) -> None:
    """Write a VOLUME of ids as PNG files in colour, as VAST reads and writes segmentations.

    The id of a pixel is red * 65536 + green * 256 + blue, so it has 24 bits. All ids are read before
    anything is written. Back: `em-blocks ingest` of the folder with "colours": "ids", which
    finds voxel size and offset in volume.json. A stopped export is simply repeated.
    """
    from em_blocks.export.vast_stack import VastStack

    box = _checked_box(source, output, roi)
    stack = VastStack.of(source, box=box, renumber=renumber)
    _write(stack, output, overwrite=overwrite, as_json=as_json, values="ids")


def _checked_box(source: str, output: Path, roi: tuple | None) -> Box:
    """Return the voxels to write, of a volume that is complete; raises an `EmBlocksError`."""
    from em_blocks.config import RoiConfig
    from em_blocks.runtime.runs.preflight import check_writable
    from em_blocks.tasks.region import box_of
    from em_blocks.volumes import Volume
    from em_blocks.volumes.stores.apart import check_outside
    from em_blocks.volumes.stores.ledger import require_complete

    check_outside({"volume": source}, output)
    check_writable(output.absolute().parent)
    require_complete(source, name="volume")
    region = RoiConfig(offset=roi[0], shape=roi[1]) if roi else None
    return box_of(region, Volume.open(source), "volume")


def _write(
    stack: SectionStack, output: Path, *, overwrite: bool, as_json: bool, values: str
) -> None:
    from em_blocks.export.section_stack import check_folder, write_stack

    check_folder(stack, output, overwrite=overwrite)
    console = Console(stderr=True)
    depth, height, width = stack.box.shape
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Writing sections", total=depth)
        for done in write_stack(stack, output, overwrite=overwrite):
            progress.update(bar, completed=done)
    if as_json:
        click.echo(json_text({"output": str(output), **stack.document()}, indent=2))
    else:
        click.echo(f"Written: {output} ({depth} sections of {height} x {width} {values})")

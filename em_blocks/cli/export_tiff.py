"""``em-blocks export tiff``: a volume as a folder of TIFF files."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.params import Numbers
from em_blocks.json_text import json_text

_POSITION = Numbers(float, "z,y,x in nm, for example 1400,0,0", count=3)


@click.command()
@click.argument("source", metavar="VOLUME")
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path),
              metavar="FOLDER", help="One file per section, section_00012.tif, and volume.json.")
@click.option("--roi", nargs=2, type=_POSITION, metavar="OFFSET SHAPE",
              help="Only this region, nm, each as z,y,x.")
@click.option("--channel", metavar="NUMBER|CLASS", help="Of the volume, if it has several.")
@click.option("--dtype", "form", type=click.Choice(["stored", "uint8", "float32"]), default="stored",
              show_default=True, help="Probabilities may become 0..255 or 0..1.")
@click.option("--overwrite", is_flag=True, help="Replace another export in FOLDER.")
@json_option
@shows_errors
def tiff(source: str, output: Path, roi: tuple | None, channel: str | None, form: str,
         overwrite: bool, as_json: bool) -> None:
    """Write VOLUME as TIFF files that keep its place: one file per section, any type of values.

    Voxel size and offset (nm, z, y, x) are in the description of every file and in volume.json, so
    that `em-blocks ingest` of the folder needs neither; other programs find the size in its tags.
    Files that are there are not written again: a stopped export is simply repeated.
    """
    from em_blocks.export.tiff_stack import TiffStack, check_folder, write_stack
    from em_blocks.runtime.runs.preflight import check_writable
    from em_blocks.tasks.region import box_of
    from em_blocks.volumes import Volume
    from em_blocks.volumes.stores.apart import check_outside
    from em_blocks.volumes.stores.ledger import require_complete

    check_outside({"volume": source}, output)
    check_writable(output.absolute().parent)
    require_complete(source, name="volume")
    box = box_of(_region(roi), Volume.open(source), "volume")
    number = int(channel) if (channel or "").isdigit() else channel
    stack = TiffStack.of(source, box=box, channel=number, form=form)
    check_folder(stack, output, overwrite=overwrite)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("Writing sections", total=box.shape[0])
        for done in write_stack(stack, output, overwrite=overwrite):
            progress.update(bar, completed=done)
    if as_json:
        click.echo(json_text({"output": str(output), **stack.document()}, indent=2))
    else:
        click.echo(f"Written: {output} ({box.shape[0]} sections of {box.shape[1]} x {box.shape[2]} "
                   f"{stack.dtype})")


def _region(roi: tuple | None):
    from em_blocks.config import RoiConfig

    return RoiConfig(offset=roi[0], shape=roi[1]) if roi else None

"""``em-blocks export webknossos``: volumes as layers of a data set, where they are."""

from __future__ import annotations

from pathlib import Path

import click

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.errors import ConfigError
from em_blocks.json_text import json_text


@click.command()
@click.argument("volumes", metavar="[NAME=]VOLUME...", nargs=-1, required=True)
@click.option("--dataset", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder of the data set, above all volumes. Default: the container of the first.")
@click.option("--overwrite", is_flag=True, help="Replace a description of other layers.")
@json_option
@shows_errors
def webknossos(volumes: tuple[str, ...], dataset: Path | None, overwrite: bool, as_json: bool) -> None:
    """Make a WEBKNOSSOS data set of VOLUMES (arrays or pyramids of zarr, zarr3), without copying them.

    Writes datasource-properties.json into FOLDER, which is then linked or copied into the folder of
    an organization in WEBKNOSSOS. Voxel sizes, magnifications and offsets are those of the volumes.
    """
    from em_blocks.export.webknossos import describe, layer_name, write_description
    from em_blocks.volumes.formats.storage import detect
    from em_blocks.volumes.stores import store
    from em_blocks.volumes.stores.ledger import require_complete
    from em_blocks.volumes.viewer.neuroglancer import levels_of

    layers: dict[str, str] = {}
    for volume in volumes:
        name, _, path = volume.rpartition("=")
        name = name or layer_name(path)
        if name in layers:
            raise ConfigError(
                f"{layers[name]} and {path} would both be the layer {name!r}. Name one of them "
                f"otherwise: other={path}."
            )
        layers[name] = path
        for level in [path] if detect(path) is not None else levels_of(path):
            require_complete(level, name="volume")
    first = next(iter(layers.values()))
    folder = dataset or Path(store.container(first))
    if detect(str(folder)) is not None:
        folder = folder.parent
    description = describe(folder, layers)
    written = write_description(folder, description, overwrite=overwrite)
    if as_json:
        click.echo(json_text({"output": str(written), **description}, indent=2))
    else:
        click.echo(f"Written: {written} ({', '.join(layers)})")

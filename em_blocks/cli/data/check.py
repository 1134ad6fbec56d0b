"""``em-blocks check-data DATA``: a table and pictures of all data before a training starts."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from em_blocks.cli.common import json_option, shows_errors
from em_blocks.cli.data.common import class_options, read_data
from em_blocks.errors import EXIT_BAD_INPUT, ConfigError
from em_blocks.json_text import json_text

if TYPE_CHECKING:
    from em_blocks.training.review.inspection import Inspection
    from em_blocks.training.review.table import Crop


@click.command(name="check-data")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write a picture of every crop, <name>.png, there.")
@class_options
@click.option("--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE",
              help="Replace a value of the config of a setup; may be repeated.")
@json_option
@shows_errors
def main(
    data: Path, output: Path | None, classes: dict[str, str], folder: Path | None,
    overrides: tuple[str, ...], as_json: bool,
) -> None:
    """Look at all data of a training before hours are spent on it.

    DATA is a data config (docs/data_configs.md), the config.json of a setup, or its folder. The table
    shows every crop: its place, the share of every class and of what is unknown, the range of raw;
    remarks name what may be wrong: labels that lie beside the edges of the image, classes that do
    not occur, crops that are there twice, validation data that are trained on. Exit code 2: a
    training would refuse the data; what it would say is printed.
    """
    from em_blocks.training.review.inspection import inspect

    found = inspect(read_data(data, classes, folder, overrides))
    pictures = _draw(found, output) if output is not None else {}
    if as_json:
        click.echo(json_text(_report(found, pictures), indent=2))
    else:
        _show(found, pictures)
    if found.errors:
        sys.exit(EXIT_BAD_INPUT)


def _draw(found: Inspection, output: Path) -> dict[str, str]:
    """Write a picture of every crop; returns the paths by the crops' names."""
    from PIL import Image

    from em_blocks.training.review.sheet import contact_sheet

    try:
        output.mkdir(parents=True, exist_ok=True)
        paths = _paths(found.crops, output)
        for path, data, crop in zip(paths, found.data, found.crops, strict=True):
            Image.fromarray(contact_sheet(data, crop)).save(path)
    except OSError as error:
        raise ConfigError(
            f"The pictures cannot be written to {output}: {error.strerror or error}. Choose another "
            "--output, or leave it out for the table alone."
        ) from error
    return {crop.name: str(path) for path, crop in zip(paths, found.crops, strict=True)}


def _paths(crops: Sequence[Crop], output: Path) -> list[Path]:
    names = [re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{crop.key}_{crop.name}") for crop in crops]
    return [
        output / f"{name}{f'_{number}' if names.count(name) > 1 else ''}.png"
        for number, name in enumerate(names, start=1)
    ]


def _report(found: Inspection, pictures: dict[str, str]) -> dict:
    return {
        "crops": [
            {
                **crop._asdict(),
                "percentiles": {str(n): value for n, value in crop.percentiles.items()},
                "classes": {name: shares._asdict() for name, shares in crop.classes.items()},
                "edges": {name: edge._asdict() for name, edge in crop.edges.items()},
                "remarks": list(crop.remarks()),
                "picture": pictures.get(crop.name),
            }
            for crop in found.crops
        ],
        "remarks": found.remarks,
        "errors": [str(error) for error in found.errors],
        "ok": not found.errors,
    }


def _show(found: Inspection, pictures: dict[str, str]) -> None:
    console = Console()
    if found.crops:
        console.print(_table(found.crops))
    for crop in found.crops:
        for remark in crop.remarks():
            console.print(f"{crop.name}: {remark}.", markup=False, soft_wrap=True)
    for remark in found.remarks:
        console.print(f"{remark}.", markup=False, soft_wrap=True)
    if pictures:
        console.print(f"{len(pictures)} pictures are in {Path(next(iter(pictures.values()))).parent}",
                      markup=False, soft_wrap=True)
    for error in found.errors:
        click.echo(f"Error: {error}", err=True)
    if not found.errors:
        console.print("A training would take these data.", markup=False)


def _table(crops: Sequence[Crop]) -> Table:
    """One row for every crop and label volume."""
    table = Table(show_lines=True)
    for name in ("crop", "labels"):
        table.add_column(name, overflow="fold")
    for name in ("object", "background", "unknown", "edges"):
        table.add_column(name, justify="right")
    for crop in crops:
        rows = _rows(crop)
        columns = zip(*([label, *shares] for label, shares in rows), strict=True)
        table.add_row(_place(crop), *("\n".join(column) for column in columns))
    return table


def _place(crop: Crop) -> str:
    shape, size, begin = (
        " x ".join(f"{n:g}" for n in values)
        for values in (crop.shape, crop.voxel_size, crop.offset_nm)
    )
    low, high = crop.percentiles[1], crop.percentiles[99]
    return (
        f"{crop.name} ({crop.key})\n{shape} voxels\nof {size} nm\nfrom {begin} nm\n"
        f"{crop.dtype} {low:g} to {high:g}"
    )


def _rows(crop: Crop) -> list[tuple[str, list[str]]]:
    rows = []
    for name, shares in crop.classes.items():
        counts = (shares.object, shares.background, shares.unknown)
        rows.append((name, [f"{n / shares.total:.2%}" for n in counts] + [_edge(crop, name)]))
    for name, share in crop.ids.items():
        rows.append((f"{name} (ids)", [f"{share:.2%}", "", f"{1 - share:.2%}", _edge(crop, name)]))
    return rows


def _edge(crop: Crop, name: str) -> str:
    """How much stronger edges of raw are under the borders of labels than elsewhere."""
    return f"x{crop.edges[name].contrast:.2f}" if name in crop.edges else ""

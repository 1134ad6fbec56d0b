"""``em-blocks features CONFIG``, or ``em-blocks features --labels VOLUME --out TABLE``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import click

from em_blocks.cli.common import shows_errors
from em_blocks.cli.params import ThreePositive
from em_blocks.cli.steps import CONFIG_HELP, run_steps, steps_command
from em_blocks.tasks.features.features import Features
from em_blocks.tasks.features.measure import Feature
from em_blocks.tasks.run_name import run_name

_HELP = f"""{inspect.getdoc(Features)}

Either name volumes and the table, or a CONFIG.

{CONFIG_HELP}"""

_OPTIONS = [
    click.Option(["--labels"], metavar="VOLUME", help="Volume of objects, by id."),
    click.Option(["--em"], metavar="VOLUME", help="Image of the same voxels, uint8."),
    click.Option(["--out"], type=click.Path(dir_okay=False, path_type=Path), metavar="TABLE.parquet",
                 help="Parquet file to write; a CSV file lies beside it."),
    click.Option(["--feature"], multiple=True, type=click.Choice(get_args(Feature)),
                 help="Measure this besides size, place and box; may be repeated. Default: all."),
    click.Option(["--block-shape"], type=ThreePositive(int), metavar="Z,Y,X",
                 help="Voxels that are measured at once."),
    click.Option(["--num-workers"], type=click.IntRange(min=1), help="Worker processes."),
]
_KEYS = {"out": "output", "feature": "features"}


def _command() -> click.Command:
    command = steps_command(Features, "features", _HELP)
    run = command.callback
    names = [option.name for option in _OPTIONS]

    @shows_errors
    def with_volumes(*, config: Path | None, **options) -> None:
        given = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
        _check_form(config, given, options)
        if config is None:
            del options["overrides"], options["print_only"]
            run_steps(_task(given), **options)
        else:
            run(config=config, **options)

    command.callback = with_volumes
    command.params[0].required = False
    command.params[1:1] = _OPTIONS
    return command


def _check_form(config: Path | None, given: dict, options: dict) -> None:
    """Raise a usage error unless the options are complete and of one of the two forms."""
    if config is not None and given:
        flag = next(option.opts[0] for option in _OPTIONS if option.name in given)
        raise click.UsageError(f"{flag} cannot be given together with a CONFIG; set its key instead.")
    if config is None and not {"labels", "out"} <= given.keys():
        raise click.UsageError("Name --labels VOLUME and --out TABLE.parquet, or a CONFIG.")
    if config is None and (options["overrides"] or options["print_only"]):
        raise click.UsageError("--set and --print-only belong to a CONFIG.")


def _task(given: dict) -> Features:
    values = {_KEYS.get(name, name): value for name, value in given.items()}
    output = str(values.pop("output").absolute())
    return Features.from_dict(
        {"kind": "features", "run": run_name(output, "features"), "output": output, **values},
        source="The command line",
    )


main = _command()

"""``python -m em_blocks.cli.schemas``: JSON Schemas of all configs, for editors and checkers."""

from __future__ import annotations

import json
from pathlib import Path

import click

from em_blocks.tasks import KINDS, task_class

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict]:
    """One JSON Schema per kind of config, by file name."""
    from em_blocks.evaluation.partners_config import EvaluateSynapses
    from em_blocks.models.config import SetupConfig

    models = {kind: task_class(kind) for kind in KINDS} | {
        "evaluate_synapses": EvaluateSynapses, "setup": SetupConfig
    }
    return {
        f"{name}.schema.json": {"$schema": DIALECT, **model.model_json_schema()}
        for name, model in models.items()
    }


def as_text(schema: dict) -> str:
    """A schema as it is stored."""
    return json.dumps(schema, indent=2) + "\n"


@click.command()
@click.argument("folder", default="configs", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write the schemas to FOLDER."""
    for name, schema in schemas().items():
        (folder / name).write_text(as_text(schema))
        click.echo(folder / name)


if __name__ == "__main__":
    main()
